//! A strict reader of Prometheus' text format: what the format allows and this project does not need is refused too.

use std::collections::{BTreeMap, BTreeSet};

/// A name and its labels.
pub(super) type Series = (String, Vec<(String, String)>);

/// A page as it was read: kinds of the families, and each sample with its name and labels.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) kinds: BTreeMap<String, String>,
    pub(super) samples: BTreeMap<Series, f64>,
}

impl Read {
    /// The sample of this name and these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> =
            labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        *self
            .samples
            .get(&(name.to_owned(), labels.clone()))
            .unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }
}

/// Reads `page`.
pub(super) fn read(page: &str) -> Result<Read, String> {
    if !page.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    let mut read = Read::default();
    let mut family: Option<(String, String)> = None;
    let mut helped: Option<String> = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').ok_or("HELP without a text")?;
            check_name(name)?;
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a kind")?;
            if helped.take().as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("{line}: without its help, or of no known kind"));
            }
            if kind == "counter" && !name.ends_with("_total") {
                return Err(format!("{name} is a counter and does not end with _total"));
            }
            if read.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("a second family {name}"));
            }
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (name, labels, value) = sample(line)?;
            let (base, kind) = family.as_ref().ok_or("a sample before any family")?;
            let suffix = name.strip_prefix(base.as_str()).ok_or(format!("{name} in the family {base}"))?;
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !allowed.contains(&suffix) {
                return Err(format!("{name} in the {kind} {base}"));
            }
            if read.samples.insert((name.clone(), labels), value).is_some() {
                return Err(format!("{line}: a second time"));
            }
        }
    }
    check_histograms(&read)?;
    Ok(read)
}

fn check_name(name: &str) -> Result<(), String> {
    let first = name.chars().next().is_some_and(|letter| letter.is_ascii_lowercase());
    let rest =
        name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if first && rest { Ok(()) } else { Err(format!("{name:?} is no name")) }
}

type Sample = (String, Vec<(String, String)>, f64);

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or(format!("{line}: no value"))?;
    let (name, mut rest) = line.split_at(end);
    check_name(name)?;
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or(format!("{line}: a label without a value"))?;
            check_name(label)?;
            let (text, after) = quoted(after).ok_or(format!("{line}: a value without an end"))?;
            labels.push((label.to_owned(), text));
            match after.chars().next() {
                Some(',') => rest = &after[1..],
                Some('}') => {
                    rest = &after[1..];
                    break;
                }
                other => return Err(format!("{line}: {other:?} after a label")),
            }
        }
    }
    let distinct: BTreeSet<_> = labels.iter().map(|(label, _)| label).collect();
    if distinct.len() != labels.len() {
        return Err(format!("{line}: a label twice"));
    }
    let value = rest.strip_prefix(' ').ok_or(format!("{line}: no blank before the value"))?;
    let value: f64 = value.parse().map_err(|_| format!("{line}: {value:?} is no number"))?;
    Ok((name.to_owned(), labels, value))
}

/// A label's value to its quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

/// Bounds rise, counts do not fall, and the last counts all.
fn check_histograms(read: &Read) -> Result<(), String> {
    let mut rows: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &read.samples {
        let Some(base) = name.strip_suffix("_bucket") else { continue };
        let mut others = labels.clone();
        let at = others.iter().position(|(label, _)| label == "le").ok_or(format!("{name} without le"))?;
        let (_, bound) = others.remove(at);
        let bound =
            if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| format!("le {bound}"))? };
        rows.entry((base.to_owned(), others)).or_default().push((bound, *value));
    }
    for ((base, labels), mut row) in rows {
        row.sort_by(|one, other| one.0.total_cmp(&other.0));
        if !row.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1) {
            return Err(format!("{base} {labels:?}: {row:?}"));
        }
        let count = read.samples.get(&(format!("{base}_count"), labels.clone()));
        if row.last().map(|last| (last.0.is_infinite(), Some(&last.1))) != Some((true, count)) {
            return Err(format!("{base} {labels:?}: the last of {row:?} is not the count {count:?}"));
        }
        if !read.samples.contains_key(&(format!("{base}_sum"), labels)) {
            return Err(format!("{base} has no sum"));
        }
    }
    Ok(())
}

#[test]
fn a_page_that_is_wrong_is_found() {
    let right = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"\\\"\\n\"} 1\n# HELP h H.\n# TYPE h histogram\n\
        h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    let page = read(right).unwrap();
    assert!((page.value("a_total", &[("x", "\"\n")]) - 1.0).abs() < f64::EPSILON);
    for (from, to) in [
        ("# HELP a_total A.\n", ""),
        ("counter", "count"),
        ("a_total", "a"),
        ("a_total{", "b_total{"),
        ("x=", "x-y="),
        ("\"} 1\n#", "\"} 1 \n#"),
        ("\"} 1\n#", "\"} one\n#"),
        ("\\\"", "\\t"),
        ("{le=\"1\"} 1", "{le=\"1\"} 3"),
        ("h_count 2", "h_count 3"),
        ("h_sum 3\n", ""),
        ("h_sum 3\n", "h_sum 3\nh_sum 3\n"),
        ("+Inf", "7"),
        ("h_count 2\n", "h_count 2"),
    ] {
        assert!(right.contains(from));
        assert!(read(&right.replace(from, to)).is_err(), "{from:?} as {to:?}");
    }
}
