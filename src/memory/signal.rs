//! What a signal handler of ours leaves to whoever was there before.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// A handler that is told where and why.
pub(super) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The handler of one signal, installed once and never taken away.
pub(super) struct Chain {
    signal: c_int,
    /// What was installed before us; its error number when that cannot be had.
    previous: OnceLock<Result<libc::sigaction, i32>>,
    /// The error number of our own installation, or 0.
    installed: OnceLock<i32>,
}

impl Chain {
    /// Of `signal`; nothing is installed yet.
    pub(super) const fn new(signal: c_int) -> Self {
        Self { signal, previous: OnceLock::new(), installed: OnceLock::new() }
    }

    /// Installs `handler` if this is the first call; with `alone`, no other signal comes in while it runs. The error number when that
    /// fails. The handler does only what is safe in a handler, and keeps errno.
    pub(super) fn install(&self, handler: Handler, alone: bool) -> Result<(), i32> {
        // Asked for before ours is in place: a signal that comes at once must find it.
        let previous = self.previous.get_or_init(|| {
            let mut previous = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: asks only, and writes a whole sigaction.
            match unsafe { libc::sigaction(self.signal, std::ptr::null(), previous.as_mut_ptr()) } {
                // SAFETY: the call filled it in.
                0 => Ok(unsafe { previous.assume_init() }),
                _ => Err(errno()),
            }
        });
        if let Err(error) = previous {
            return Err(*error);
        }
        let error = *self.installed.get_or_init(|| {
            // SAFETY: all zero is a sigaction: the default action, no flags, an empty mask.
            let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
            action.sa_sigaction = handler as usize;
            // On the alternative stack, where there is one: the previous handler may be the one for stack overflow.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            if alone {
                // SAFETY: fills a mask that is ours.
                unsafe { libc::sigfillset(&raw mut action.sa_mask) };
            }
            // SAFETY: the caller vouches for the handler.
            if unsafe { libc::sigaction(self.signal, &raw const action, std::ptr::null_mut()) } == 0 {
                0
            } else {
                errno()
            }
        });
        if error == 0 { Ok(()) } else { Err(error) }
    }

    /// Does what would have been done without us. In the handler, with what it was given.
    pub(super) fn pass_on(&self, info: *mut libc::siginfo_t, context: *mut c_void) {
        let signal = self.signal;
        // SAFETY: the kernel hands every handler with SA_SIGINFO a siginfo, which is ours while the handler runs.
        let by_kernel = unsafe { (*info).si_code } > 0;
        let (action, flags) = match self.previous.get() {
            Some(Ok(previous)) => (previous.sa_sigaction, previous.sa_flags),
            _ => (libc::SIG_DFL, 0),
        };
        if action == libc::SIG_IGN && !by_kernel {
            return;
        }
        // A fault cannot be ignored: the access would be repeated for ever.
        if action == libc::SIG_DFL || action == libc::SIG_IGN {
            // SAFETY: restores the default action.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // A fault comes again when we return; what was sent does not.
            if !by_kernel {
                // SAFETY: may be called in a handler; delivered when we return.
                unsafe { libc::raise(signal) };
            }
        } else if flags & libc::SA_SIGINFO != 0 {
            // SAFETY: with SA_SIGINFO the number is such a function.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(action) };
            handler(signal, info, context);
            finish_default(signal, by_kernel);
        } else {
            // SAFETY: without SA_SIGINFO the number is such a function.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(action) };
            handler(signal);
            finish_default(signal, by_kernel);
        }
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Runs `action`, in a handler, and leaves this thread's errno as it was.
pub(super) fn keeping_errno(action: impl FnOnce()) {
    // SAFETY: the address of this thread's errno, valid as long as the thread.
    let errno_at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno = unsafe { *errno_at };
    action();
    // SAFETY: as above.
    unsafe { *errno_at = errno };
}

/// A handler (that of the Rust runtime is one) may answer a signal by restoring the default action and returning, in
/// the belief that a fault will come again. A signal that was sent does not, and would have left us uninstalled.
fn finish_default(signal: c_int, by_kernel: bool) {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only, and writes a whole sigaction.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroed is a sigaction, and so is what the call wrote.
    let now = unsafe { now.assume_init() };
    if asked == 0 && now.sa_sigaction == libc::SIG_DFL && !by_kernel {
        // SAFETY: may be called in a handler; delivered when we return.
        unsafe { libc::raise(signal) };
    }
}
