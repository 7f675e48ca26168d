//! Each rule taken away has to break something: that the explorer finds nothing with all of them means something then.

use mirrorbus_model::{Failover, Rule, Step};
use stateright::{Checker, HasDiscoveries, Model};

/// A short way to break something, and what is broken.
fn broken(model: Failover) -> Option<(&'static str, Vec<Step>)> {
    let explored = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = explored.discoveries().into_iter().next();
    found.map(|(name, path)| (name, path.into_actions()))
}

fn assert_broken(model: Failover, rules: &[Rule]) {
    let mutated = rules.iter().fold(model, |model, rule| model.without(*rule));
    let (what, steps) = broken(mutated).unwrap_or_else(|| panic!("{rules:?}: not needed"));
    println!("without {rules:?} it is not so that {what}: {steps:?}");
}

#[test]
fn each_rule_is_needed() {
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
        assert_broken(Failover::new(1, crashes), &[rule]);
    }
    assert_broken(Failover::new(1, 0).with_late_words(), &[Rule::OlderIsRefused]);
}

#[test]
fn each_rule_of_an_election_is_needed() {
    for (rule, crashes) in [
        (Rule::RenounceForSameId, 0),
        (Rule::ElectWithoutJoin, 0),
        (Rule::RenounceInLife, 1),
        (Rule::RenounceWhenSettled, 0),
        (Rule::ElectedByAnswer, 0),
        (Rule::ElectedEndsFirst, 0),
        (Rule::NumberElections, 0),
        (Rule::DiskBeforeAlone, 0),
        (Rule::ElectionEndsWithLife, 1),
        (Rule::ElectionStaysNoted, 1),
        (Rule::RenouncedStays, 0),
    ] {
        assert_broken(Failover::new(1, crashes).electing(), &[rule]);
    }
    let either = [Rule::RenounceOnDisk, Rule::InviteWhenConfirmed];
    assert_broken(Failover::new(1, 1).electing(), &either);
    if std::env::var_os("MIRRORBUS_FULL").is_some_and(|value| value == "1") {
        // Of these one is enough, as far as is seen.
        for rule in either {
            assert_eq!(broken(Failover::new(1, 2).electing().without(rule)), None);
        }
    }
}
