//! Each rule taken away has to break something: that the explorer finds nothing with all of them means something then.

use mirrorbus_model::{Failover, Rule, Step};
use stateright::{Checker, HasDiscoveries, Model};

/// The shortest way to break something, and what is broken.
fn broken(model: Failover) -> Option<(&'static str, Vec<Step>)> {
    let explored = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = explored.discoveries().into_iter().next();
    found.map(|(name, path)| (name, path.into_actions()))
}

#[test]
fn each_rule_is_needed() {
    (0..=2).for_each(|crashes| assert_eq!(broken(Failover::new(1, crashes)), None));
    for (rule, crashes) in [
        (Rule::Fence, 0),
        (Rule::Drain, 0),
        (Rule::OutlastLease, 0),
        (Rule::OutlastAfterRestart, 1),
        (Rule::HoldWhileLeaving, 0),
        (Rule::DiskBeforeLeave, 0),
        (Rule::CommitByBoth, 0),
        (Rule::JoinWhenWhole, 1),
        (Rule::NoteBeforeJoin, 0),
        (Rule::OnlyAnswersSettle, 0),
        (Rule::RetryIsTaken, 0),
        (Rule::FreshId, 1),
        (Rule::NoMemberAfterRestart, 1),
        (Rule::MemberByFollowing, 2),
    ] {
        let model = Failover::new(1, crashes);
        let (what, steps) = broken(model.without(rule)).unwrap_or_else(|| panic!("{rule:?} is not needed"));
        println!("without {rule:?} it is not so that {what}: {steps:?}");
    }
}
