//! Reading to the end, into any memory.

use std::io;

use rustix::io::Errno;

/// Bytes that are read beside the target at a time.
const APART_BYTES: usize = 16 * 1024;

/// Fills `target` with what `read` gives from `offset` on, and with zeroes behind its end.
///
/// The kernel stores into no page that is protected, as those are of a memory whose stores are found by faults, and says EFAULT: nothing is
/// wrong with the disk. Then it is read elsewhere and stored from here, which raises the fault that opens the page.
///
/// # Errors
/// Those of `read` but EINTR and this.
pub(super) fn whole(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    offset: u64,
    target: &mut [u8],
) -> io::Result<()> {
    let (mut at, mut rest) = (offset, target);
    while !rest.is_empty() {
        let count = match read(rest, at) {
            Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => apart(&read, at, rest),
            other => other,
        };
        match count {
            Ok(0) => {
                rest.fill(0);
                return Ok(());
            }
            Ok(count) => {
                rest = &mut rest[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn apart(
    read: &impl Fn(&mut [u8], u64) -> io::Result<usize>,
    at: u64,
    target: &mut [u8],
) -> io::Result<usize> {
    let mut bytes = [0; APART_BYTES];
    let most = target.len().min(APART_BYTES);
    let count = read(&mut bytes[..most], at)?;
    target[..count].copy_from_slice(&bytes[..count]);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_kernel_cannot_store_into_is_filled_all_the_same() {
        let file: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
        let mut target = vec![9; 90_000];
        let closed = target.as_ptr_range();
        // As the kernel does: what lies before the closed pages is read, and what begins in them is refused.
        let read = |part: &mut [u8], at: u64| {
            let at = usize::try_from(at).unwrap();
            if part.as_ptr() >= closed.start.wrapping_add(5000) && part.as_ptr() < closed.end {
                return Err(Errno::FAULT.into());
            }
            let count = if closed.contains(&part.as_ptr()) { 5000 } else { part.len() };
            let count = count.min(part.len()).min(file.len() - at);
            part[..count].copy_from_slice(&file[at..at + count]);
            Ok(count)
        };
        whole(read, 20_000, &mut target).unwrap();
        assert!(target[..80_000] == file[20_000..] && target[80_000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn errors_of_the_disk_stay_what_they_are() {
        let error = whole(|_, _| Err(Errno::IO.into()), 0, &mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
}
