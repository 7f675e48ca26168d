//! What a measurement tells: a table on the terminal, and the same as JSON in a file.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Context, Result};

/// Prints what `table` writes, and writes the JSON to `path`, whose directory is made if it is missing.
pub(super) fn deliver(
    table: impl FnOnce(&mut String) -> std::fmt::Result,
    json: &Value,
    path: &Path,
) -> Result<()> {
    print!("\n{}", text_of(table));
    let what = || format!("writing {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).context(what)?;
    fs::write(path, format!("{json:#}\n")).context(what)?;
    println!("\n{}", path.display());
    Ok(())
}

/// What `table` writes.
pub(super) fn text_of(table: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    table(&mut text).expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_json() {
        let directory = std::env::temp_dir().join(format!("mirrorbus-report-{}", std::process::id()));
        let path = directory.join("below").join("figures.json");
        deliver(
            |text| std::fmt::Write::write_str(text, "a table\n"),
            &serde_json::json!({ "p50": 3 }),
            &path,
        )
        .unwrap();
        let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["p50"], 3);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text_of(|text| std::fmt::Write::write_str(text, "a table")), "a table");
    }
}
