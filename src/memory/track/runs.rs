//! Which pages were stored to: runs of them, by rising offset.

use std::ops::Range;

/// Runs of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// Bytes in a page.
    page: usize,
    /// In bytes; sorted, disjoint, not touching.
    runs: Vec<Range<usize>>,
}

impl Runs {
    /// None, of pages of `page` bytes.
    ///
    /// # Panics
    /// When `page` is 0.
    #[must_use]
    pub const fn new(page: usize) -> Self {
        assert!(page > 0, "pages have bytes");
        Self { page, runs: Vec::new() }
    }

    /// Adds the pages of these numbers.
    pub fn add_pages(&mut self, pages: Range<usize>) {
        let mut run = pages.start * self.page..pages.end * self.page;
        if run.is_empty() {
            return;
        }
        // Mostly they come by rising number.
        let after = self.runs.partition_point(|known| known.end < run.start);
        let mut until = after;
        while let Some(known) = self.runs.get(until).filter(|known| known.start <= run.end) {
            run = run.start.min(known.start)..run.end.max(known.end);
            until += 1;
        }
        self.runs.splice(after..until, [run]);
    }

    /// Bytes in a page.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.page
    }

    /// The runs, in bytes: sorted, disjoint.
    #[must_use]
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// How many pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.runs.iter().map(|run| run.len() / self.page).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]
        #[test]
        fn each_page_that_was_added_is_there_once(input in prop::collection::vec((0usize..60, 0usize..6), 0..20)) {
            let (mut runs, mut pages) = (Runs::new(16), [false; 70]);
            for (first, count) in input {
                runs.add_pages(first..first + count);
                pages[first..first + count].fill(true);
            }
            let ranges = runs.ranges();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            for (page, added) in pages.into_iter().enumerate() {
                prop_assert_eq!(ranges.iter().any(|run| run.contains(&(page * 16))), added);
            }
            prop_assert_eq!(runs.pages(), pages.iter().filter(|added| **added).count());
        }
    }
}
