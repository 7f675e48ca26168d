//! How ordinary stores can be found here: each method of epochs, by using it.

use mirrorbus::memory::TrackingMethod;

use super::Finding;

/// Looks at all of it.
pub(super) fn look() -> Vec<Finding> {
    let mut findings: Vec<_> = TrackingMethod::ALL.into_iter().map(method).collect();
    findings.push(match TrackingMethod::choose() {
        Ok((_, why)) => Finding::ok("epochs, stores found by", why),
        Err(error) => Finding::fail("epochs, stores found by", error.to_string(), "a kernel with mprotect"),
    });
    findings
}

fn method(method: TrackingMethod) -> Finding {
    let (what, fix) = match method {
        TrackingMethod::WpAsync => (
            "epochs, wp-async",
            "optional: Linux 6.9 or later with CONFIG_USERFAULTFD, and a seccomp profile that allows userfaultfd",
        ),
        TrackingMethod::SoftDirty => ("epochs, soft-dirty", "optional: a kernel with CONFIG_MEM_SOFT_DIRTY"),
        TrackingMethod::Mprotect => ("epochs, mprotect", "a kernel with mprotect"),
    };
    match method.probe() {
        Ok(()) => Finding::ok(what, "a store was found"),
        Err(error) => Finding::warn(what, error.to_string(), fix),
    }
}
