//! Takes the kernel out of the file that a boot loader would start.
//!
//! As a plain ELF file QEMU enters it directly (PVH): no firmware, and no decompression under emulation.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::failure::{Context, Failure, Result};

/// The ELF file inside a `vmlinuz`.
pub(crate) fn decompressed(vmlinuz: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(vmlinuz)?;
    // Its last four bytes are its length when decompressed, put there by the kernel's build.
    let mut xz = Command::new("xz")
        .args(["--decompress", "--stdout", "--single-stream"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(|| "xz".to_owned())?;
    let mut input = xz.stdin.take().expect("it is piped");
    let payload = payload.to_vec();
    // A thread of its own: xz writes before it has read all. An error of writing shows as one of xz.
    let feeder = std::thread::spawn(move || input.write_all(&payload));
    let output = xz.wait_with_output().context(|| "xz".to_owned())?;
    let _ = feeder.join();
    if !output.status.success() || !output.stdout.starts_with(b"\x7fELF") {
        return Err(Failure::new(format!("the kernel could not be decompressed: xz {}", output.status)));
    }
    Ok(output.stdout)
}

/// The compressed part, found by the fields of the boot header (Documentation/arch/x86/boot.rst).
fn payload(vmlinuz: &[u8]) -> Result<&[u8]> {
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LEN: usize = 0x24c;
    const SECTOR_BYTES: usize = 512;
    const TRAILER_BYTES: usize = 4;
    let not = |what: &str| Failure::new(format!("the kernel is not {what}"));
    let word = |at: usize| {
        let bytes = vmlinuz.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if vmlinuz.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(not("an x86 boot image"));
    }
    let setup = usize::from(vmlinuz[SETUP_SECTORS]) + 1;
    let (Some(offset), Some(len)) = (word(PAYLOAD_OFFSET), word(PAYLOAD_LEN)) else {
        return Err(not("whole"));
    };
    let start = setup * SECTOR_BYTES + offset;
    let payload = vmlinuz.get(start..start + len.saturating_sub(TRAILER_BYTES));
    payload.filter(|bytes| bytes.starts_with(b"\xfd7zXZ\0")).ok_or_else(|| not("compressed with xz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * 512 + 16];
        bytes[0x1f1] = 1;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        assert_eq!(payload(&image(b"\xfd7zXZ\0abc\x01\x02\x03\x04")).unwrap(), b"\xfd7zXZ\0abc");
        for (broken, word) in [(image(b"zstd......"), "xz"), (vec![0; 10], "x86"), (image(b""), "xz")] {
            assert!(payload(&broken).unwrap_err().to_string().contains(word));
        }
    }
}
