//! What a device tells without being asked, as data: so that a test can tell it too.

use rdma_sys::{ibv_event_type, ibv_qp};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A queue pair, by number, cannot go on.
    QueuePair {
        /// Its number.
        number: u32,
        /// What happened, as a number of the library.
        kind: u32,
    },
    /// A completion queue, by address, lost completions.
    CompletionQueue {
        /// Its address.
        address: u64,
    },
    /// A port is down: nothing gets through.
    PortDown {
        /// Its number.
        port: u32,
    },
    /// The device is broken.
    DeviceFatal,
    /// Nothing follows from it here.
    Harmless {
        /// What happened, as a number of the library.
        kind: u32,
    },
}

const QP_FATAL: u32 = ibv_event_type::IBV_EVENT_QP_FATAL as u32;
const QP_REQ_ERR: u32 = ibv_event_type::IBV_EVENT_QP_REQ_ERR as u32;
const QP_ACCESS_ERR: u32 = ibv_event_type::IBV_EVENT_QP_ACCESS_ERR as u32;
const CQ_ERR: u32 = ibv_event_type::IBV_EVENT_CQ_ERR as u32;
const PORT_ERR: u32 = ibv_event_type::IBV_EVENT_PORT_ERR as u32;
const DEVICE_FATAL: u32 = ibv_event_type::IBV_EVENT_DEVICE_FATAL as u32;

impl DeviceEvent {
    /// Of what the library filled in. `number_of` reads the number of a queue pair.
    pub(super) fn decode(kind: u32, element: u64, number_of: impl FnOnce(*const ibv_qp) -> u32) -> Self {
        let address = usize::try_from(element).unwrap_or(0);
        match kind {
            QP_FATAL | QP_REQ_ERR | QP_ACCESS_ERR => {
                Self::QueuePair { number: number_of(std::ptr::with_exposed_provenance(address)), kind }
            }
            CQ_ERR => Self::CompletionQueue { address: element },
            // A port is an `int` at the union's start: the first four bytes.
            PORT_ERR => Self::PortDown { port: first_half(element) },
            DEVICE_FATAL => Self::DeviceFatal,
            kind => Self::Harmless { kind },
        }
    }

    /// Whether it is about a connection with this queue pair, through this port.
    pub(super) const fn concerns(self, queue_pair: u32, own_port: u8) -> bool {
        match self {
            Self::QueuePair { number, .. } => number == queue_pair,
            Self::PortDown { port } => port == own_port as u32,
            // A queue of completions is never shared, and one that lost any is of no use: which it was is seen there.
            Self::CompletionQueue { .. } | Self::DeviceFatal => true,
            Self::Harmless { .. } => false,
        }
    }
}

/// The first four bytes as they lie in memory.
fn first_half(element: u64) -> u32 {
    let [a, b, c, d, ..] = element.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

impl std::fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::QueuePair { number, kind: QP_FATAL } => write!(f, "queue pair {number} broke down"),
            Self::QueuePair { number, kind: QP_REQ_ERR } => {
                write!(f, "queue pair {number} got a request that makes no sense")
            }
            Self::QueuePair { number, kind: QP_ACCESS_ERR } => {
                write!(f, "queue pair {number} got a request that is not allowed")
            }
            Self::QueuePair { number, kind } => write!(f, "queue pair {number}: event {kind}"),
            Self::CompletionQueue { .. } => f.write_str("a completion queue lost completions"),
            Self::PortDown { port } => write!(f, "port {port} of the RDMA device is down"),
            Self::DeviceFatal => f.write_str("the RDMA device broke down"),
            Self::Harmless { kind } => write!(f, "event {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_queue_is_told_from_what_does_not() {
        let never = |_: *const ibv_qp| panic!("this event has no queue pair");
        assert_eq!(DeviceEvent::decode(DEVICE_FATAL, 0, never), DeviceEvent::DeviceFatal);
        assert_eq!(
            DeviceEvent::decode(PORT_ERR, 0xffff_ffff_0000_0002, never),
            DeviceEvent::PortDown { port: 2 }
        );
        assert_eq!(
            DeviceEvent::decode(QP_FATAL, 64, |_| 17),
            DeviceEvent::QueuePair { number: 17, kind: QP_FATAL }
        );
        assert_eq!(DeviceEvent::decode(9, 1, never), DeviceEvent::Harmless { kind: 9 });
        assert_eq!(DeviceEvent::decode(1000, 1, never), DeviceEvent::Harmless { kind: 1000 });
        assert!(DeviceEvent::DeviceFatal.to_string().contains("broke down"));
    }

    #[test]
    fn a_connection_is_concerned_by_its_own_queue_pair_and_port_and_by_the_whole_device() {
        let concerns = |event: DeviceEvent| event.concerns(17, 1);
        for event in [
            DeviceEvent::QueuePair { number: 17, kind: QP_FATAL },
            DeviceEvent::PortDown { port: 1 },
            DeviceEvent::CompletionQueue { address: 64 },
            DeviceEvent::DeviceFatal,
        ] {
            assert!(concerns(event), "{event}");
        }
        for event in [
            DeviceEvent::QueuePair { number: 18, kind: QP_FATAL },
            DeviceEvent::PortDown { port: 2 },
            // A number of which only the last byte is that of the port.
            DeviceEvent::PortDown { port: 257 },
            DeviceEvent::Harmless { kind: 9 },
        ] {
            assert!(!concerns(event), "{event}");
        }
    }
}
