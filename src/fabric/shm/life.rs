//! A word that the kernel marks when this process ends, however it ends.
//!
//! Without it an owner would go on storing into the pages of a dead holder, and acknowledge stores that only the
//! owner itself still holds. A socket tells of the death too, but only when somebody reads it; this tells the very
//! load that precedes each acknowledgement.
//!
//! The kernel walks a thread's *robust list* when the thread ends and sets `FUTEX_OWNER_DIED` in each futex word on it
//! that holds the thread's id (see `set_robust_list(2)`). A thread of its own, which does nothing but wait, registers a
//! list with one entry. The C library uses each thread's list for robust mutexes; this thread takes none.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::GrantPage;

/// `struct robust_list_head` with its one entry behind it. `entry` is an address within this thread's stack.
#[repr(C)]
struct RobustList {
    head: *const *const (),
    futex_offset: libc::c_long,
    pending: *const (),
    entry: *const (),
}

/// Keeps the mark armed while it lives; dropping it disarms first, so that an orderly end is no death.
#[derive(Debug)]
pub struct LifeWord {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LifeWord {
    /// Arms the life word of `page`.
    ///
    /// # Errors
    /// The kernel has no thread left or refuses the list.
    pub fn arm(page: Arc<GrantPage>) -> std::io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("mirrorbus-life".into())
            .spawn(move || live(&page, &tell, &ended))?;
        let life = Self { end: Some(end), thread: Some(thread) };
        told.recv().map_err(|_| std::io::Error::other("the life thread ended early"))??;
        Ok(life)
    }
}

impl Drop for LifeWord {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn live(page: &GrantPage, tell: &mpsc::Sender<std::io::Result<()>>, ended: &mpsc::Receiver<()>) {
    let word = page.life_word();
    let mut list = RobustList {
        head: std::ptr::null(),
        futex_offset: 0,
        pending: std::ptr::null(),
        entry: std::ptr::null(),
    };
    let head = std::ptr::from_mut(&mut list);
    // SAFETY: `head` points to `list`, which lives on this stack until the thread ends.
    let entry = unsafe { head.byte_add(offset_of!(RobustList, entry)) }.cast::<*const ()>();
    let futex_offset = word.as_ptr().addr().wrapping_sub(entry.addr()).cast_signed();
    // The list is circular: head → entry → head.
    // SAFETY: `head` is valid, see above.
    unsafe {
        head.write_volatile(RobustList {
            head: entry,
            futex_offset: futex_offset as libc::c_long,
            pending: std::ptr::null(),
            entry: head.cast(),
        })
    };
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    word.store(thread_id, Ordering::SeqCst);
    // SAFETY: the list stays valid until it is replaced below or the thread ends, when the kernel reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_set_robust_list, head, size_of::<RobustList>() - size_of::<*const ()>())
    };
    let registered = if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let armed = registered.is_ok();
    let _ = tell.send(registered);
    if armed {
        // Ends when the sender is dropped.
        let _ = ended.recv();
        // SAFETY: as above: the list empties itself, head → head, before it goes out of scope.
        unsafe {
            head.write_volatile(RobustList {
                head: head.cast(),
                futex_offset: 0,
                pending: std::ptr::null(),
                entry: head.cast(),
            })
        };
    }
}
