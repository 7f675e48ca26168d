//! Prometheus' text format, version 0.0.4: families of samples, each with its kind and help.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises, from 0 at the start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

/// A page of families.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// One family, while its samples are added.
#[derive(Debug)]
pub(super) struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

/// Labels with their values.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

impl Page {
    /// Begins a family.
    pub(super) fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.add(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: self, name }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a text takes all that is written");
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: u64) -> &mut Self {
        self.write("", labels, None, format_args!("{value}"))
    }

    /// Adds a sample in seconds.
    pub(super) fn seconds(&mut self, labels: &Labels<'_>, nanoseconds: u64) -> &mut Self {
        self.write("", labels, None, format_args!("{}", Seconds(nanoseconds)))
    }

    /// Adds a histogram of nanoseconds, as seconds: counts up to each bound, of all, and their sum.
    pub(super) fn histogram(
        &mut self,
        labels: &Labels<'_>,
        buckets: impl Iterator<Item = (u64, u64)>,
        count: u64,
        sum: u64,
    ) -> &mut Self {
        for (bound, within) in buckets {
            let bound = Seconds(bound).to_string();
            self.write("_bucket", labels, Some(&bound), format_args!("{within}"));
        }
        self.write("_bucket", labels, Some("+Inf"), format_args!("{count}"));
        self.write("_sum", labels, None, format_args!("{}", Seconds(sum)));
        self.write("_count", labels, None, format_args!("{count}"))
    }

    fn write(
        &mut self,
        suffix: &str,
        labels: &Labels<'_>,
        bound: Option<&str>,
        value: std::fmt::Arguments<'_>,
    ) -> &mut Self {
        let name = self.name;
        self.page.add(format_args!("{name}{suffix}"));
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut before = "{";
        for (label, text) in all {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.page.add(format_args!("{before}{label}=\"{text}\""));
            before = ",";
        }
        let end = if before == "," { "}" } else { "" };
        self.page.add(format_args!("{end} {value}\n"));
        self
    }
}

/// Nanoseconds, written as seconds without loss.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_the_format_says() {
        let mut page = Page::default();
        page.family(Kind::Gauge, "a_bytes", "Line\nand \\ more.")
            .sample(&[], 7)
            .sample(&[("v", "x\"\\\n")], 8);
        page.family(Kind::Histogram, "b_seconds", "H.").histogram(
            &[("d", "e")],
            [(1_000, 1), (2_000_000_000, 2)].into_iter(),
            3,
            1_500_000_001,
        );
        let expected = "# HELP a_bytes Line\\nand \\\\ more.\n# TYPE a_bytes gauge\na_bytes 7\n\
            a_bytes{v=\"x\\\"\\\\\\n\"} 8\n# HELP b_seconds H.\n# TYPE b_seconds histogram\n\
            b_seconds_bucket{d=\"e\",le=\"0.000001\"} 1\nb_seconds_bucket{d=\"e\",le=\"2\"} 2\n\
            b_seconds_bucket{d=\"e\",le=\"+Inf\"} 3\nb_seconds_sum{d=\"e\"} 1.500000001\nb_seconds_count{d=\"e\"} 3\n";
        assert_eq!(page.finish(), expected);
    }
}
