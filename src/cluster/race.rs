//! Which of the two goes on.

use std::time::Duration;

use super::Configuration;

/// How long the node that is not preferred waits before it asks for the configuration, so that the other one is heard first.
pub const RACE_DELAY: Duration = Duration::from_millis(300);

/// How long a node waits that has lost the other, before it asks for the configuration. Without a preferred node it is the one that serves.
#[must_use]
pub fn delay(node: &str, serves: bool, preferred: Option<&str>) -> Duration {
    let is_preferred = preferred.map_or(serves, |preferred| preferred == node);
    if is_preferred { Duration::ZERO } else { RACE_DELAY }
}

/// Of two nodes that do not serve, whether `node` is the only one that the configuration lets go on: `None` when it says nothing, since both
/// are members, or neither is one of this pair.
///
/// A member has every acknowledged write; what another has beyond it never was one.
#[must_use]
pub fn is_only_member(configuration: &Configuration, node: &str, other: &str) -> Option<bool> {
    let is_member = |name: &str| configuration.members.iter().any(|member| member == name);
    match (is_member(node), is_member(other)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (true, true) | (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two_asks_at_once() {
        for preferred in [None, Some("a"), Some("b")] {
            for a_serves in [true, false] {
                let delays = (delay("a", a_serves, preferred), delay("b", !a_serves, preferred));
                let a_first = preferred.map_or(a_serves, |preferred| preferred == "a");
                let wanted =
                    if a_first { (Duration::ZERO, RACE_DELAY) } else { (RACE_DELAY, Duration::ZERO) };
                assert_eq!(delays, wanted, "{preferred:?} {a_serves}");
            }
        }
        assert_eq!(delay("a", true, Some("c")), RACE_DELAY, "a name of no node of the pair");
    }

    #[test]
    fn a_node_that_is_no_member_does_not_go_on_before_one_that_is() {
        let with = |members: &[&str]| Configuration {
            id: 1,
            members: members.iter().map(ToString::to_string).collect(),
            primary: "a".into(),
            floor: 0,
        };
        assert_eq!(is_only_member(&with(&["a"]), "a", "b"), Some(true));
        assert_eq!(is_only_member(&with(&["b"]), "a", "b"), Some(false));
        assert_eq!(is_only_member(&with(&["a", "b"]), "a", "b"), None);
        assert_eq!(is_only_member(&with(&["c"]), "a", "b"), None);
    }
}
