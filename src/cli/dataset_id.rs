//! `mirrorbus dataset-id`.

/// Prints a new one.
pub(crate) fn run() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", mirrorbus::serve::config::new_dataset_id()?);
    Ok(())
}
