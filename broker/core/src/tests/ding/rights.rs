//! Who may send a DING to whom, about what, by which plan; and who may know of it.

use super::*;
use crate::limits::DING_STEP_TIMES_MAX;
use carillon_protocol::control::{ConversationCreate, Leave, MembersAdd};
use carillon_protocol::ding_status::{DingList, DingWatch};
use carillon_protocol::kinds::Role;
use carillon_protocol::limits::{DING_ATTEMPTS_MAX, DING_STEPS_MAX};

const INVALID: ErrorCode = ErrorCode::INVALID;

fn to(target: Target, id: ConversationId) -> DingCreate {
    DingCreate { target, target_id: id.0, ..ding(1, &[]) }
}

#[test]
fn a_ding_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    let nobody = Principal { user: NOBODY, ..ann };
    let base = ding(1, &[bob]);
    let mut check = |create: DingCreate, expected| assert_eq!(refused(&mut world, ann, create, nagging()), expected);
    check(ding(1, &[]), INVALID);
    check(ding(1, &[ann]), INVALID);
    check(ding(1, &[bob, nobody]), ErrorCode::UNKNOWN_USER);
    check(DingCreate { kind: MessageKind::SYSTEM, ..base.clone() }, INVALID);
    check(DingCreate { starts_at: Timestamp(u64::MAX), ..base.clone() }, INVALID);
    check(DingCreate { starts_at: Timestamp(1_001 + 90 * 86_400_000), ..base.clone() }, INVALID);
    check(DingCreate { payload: std::vec![0; 65_537].into(), ..base.clone() }, ErrorCode::TOO_LARGE);
    check(DingCreate { recipients: std::vec![bob.user; 10_001], ..base.clone() }, ErrorCode::TOO_LARGE);
    check(to(Target::USER, group), INVALID);
    check(to(Target(0), group), INVALID);
    check(to(Target::CONVERSATION, NOWHERE), ErrorCode::NOT_FOUND);
    check(to(Target::CONVERSATION, ConversationId::new(SHARD, 1)), ErrorCode::NOT_FOUND);
    assert_eq!(refused(&mut world, eve, to(Target::CONVERSATION, group), nagging()), ErrorCode::NOT_FOUND);
    let created = ask(&mut world, bob, to(Target::CONVERSATION, group), nagging());
    assert_eq!(frame!(DingCreated, created).recipients, 1);
    assert_eq!(urgent(&world).0, [ann.user]);
    let latest = DingCreate { starts_at: Timestamp(1_000 + 90 * 86_400_000), ..base };
    send(&mut world, ann, latest, nagging());
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let base = nagging();
    let app = step(Outlet::APP, 0);
    let mut check = |terms: DingTerms| assert_eq!(refused(&mut world, ann, ding(1, &[bob]), terms), INVALID);
    check(terms(&[]));
    check(terms(&[step(Outlet::SMS, 0)]));
    check(terms(&std::vec![app; DING_STEPS_MAX + 1]));
    check(terms(&[PlannedStep { times: 0, ..app }]));
    check(terms(&[PlannedStep { times: 2, ..app }]));
    check(terms(&[PlannedStep { times: 2, repeat_every_ms: 999, ..app }]));
    check(terms(&[app, PlannedStep { outlet: Outlet(0), ..app }]));
    let often = |times| PlannedStep { times, repeat_every_ms: 1_000, ..app };
    check(terms(&[often(u16::MAX)]));
    check(terms(&[often(100), often(93)]));
    check(DingTerms { expires_after_ms: 0, ..base.clone() });
    check(DingTerms { expires_after_ms: 30 * 86_400_000 + 1, ..base.clone() });
    check(DingTerms { expires_after_ms: u64::MAX, ..base.clone() });
    check(DingTerms { quiet: QuietWindow { from_min: 1_440, to_min: 0 }, ..base.clone() });
    check(DingTerms { quiet: QuietWindow { from_min: 0, to_min: u16::MAX }, ..base.clone() });
    let most = DingTerms { expires_after_ms: 30 * 86_400_000, ..terms(&[often(100), often(92)]) };
    send(&mut world, ann, ding(1, &[bob]), most);
    send(&mut world, ann, ding(2, &[bob]), terms(&[app; DING_STEPS_MAX]));
}

#[test]
fn reminders_leave_room_for_the_plan() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let times = u16::try_from(DING_STEP_TIMES_MAX).unwrap();
    let plan =
        terms(&[PlannedStep { times, repeat_every_ms: 1_000, ..step(Outlet::APP, 1_000) }, step(Outlet::SMS, 0)]);
    assert_eq!(refused(&mut world, ann, ding(1, &[bob]), plan.clone()), INVALID, "together they are too many");
    let mut plan = plan;
    plan.steps[0].times -= 1;
    let id = send(&mut world, ann, ding(1, &[bob]), DingTerms { expires_after_ms: 86_400_000, ..plan });
    let mut reminded = 0;
    while let Frame::DingReminded(reply) = remind(&mut world, ann, id, Outlet::PHONE) {
        assert_eq!(reply.recipients, 1);
        reminded += 1;
    }
    assert_eq!(reminded, DING_ATTEMPTS_MAX - DING_STEP_TIMES_MAX);
    assert_eq!(code(remind(&mut world, ann, id, Outlet::PHONE)), ErrorCode::LIMIT_REACHED);
    world.restart();
    let steps = (2..).map(|second| tick(&mut world, second * 1_000)).take_while(|begun| *begun > 0).sum::<usize>();
    assert_eq!(steps, DING_STEP_TIMES_MAX - 1);
    assert_eq!(attempts(&mut world, ann, id, bob.user).len(), DING_ATTEMPTS_MAX);
    world.reload();
}

#[test]
fn a_reminder_is_the_sender_s_and_by_what_policy_lets_it() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve]), nagging());
    frame!(DingConfirmed, confirm(&mut world, eve, id));
    assert_eq!(code(remind(&mut world, bob, id, Outlet::APP)), ErrorCode::NOT_FOUND);
    let refused = Refused { code: ErrorCode::FORBIDDEN, text: "no calls in this tenant: use the app".into() };
    let call = DingRemind { request: 9, ding: id, outlet: Outlet::PHONE };
    assert_eq!(code(world.request(ann, Request::DingRemind(call, Err(refused)))), ErrorCode::FORBIDDEN);
    assert_eq!(code(remind(&mut world, ann, id, Outlet(0))), INVALID, "nothing carries it");
    assert_eq!(frame!(DingReminded, remind(&mut world, ann, id, Outlet::APP)).recipients, 1);
    assert_eq!(urgent(&world).0, [bob.user]);
}

#[test]
fn a_tenant_may_keep_dings_between_those_who_share_a_conversation() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    let known = DingTerms { audience: Audience::Acquainted, ..nagging() };
    assert_eq!(refused(&mut world, ann, ding(1, &[bob, eve]), known.clone()), ErrorCode::FORBIDDEN);
    let service = Principal { authority: Authority::Service, ..ann };
    send(&mut world, service, ding(2, &[eve]), known.clone());
    send(&mut world, ann, ding(1, &[bob]), known.clone());
    frame!(Done, world.request(bob, Request::Leave(Leave { request: 9, conversation: group })));
    assert_eq!(refused(&mut world, ann, ding(3, &[bob]), known), ErrorCode::FORBIDDEN, "he has left");
}

#[test]
fn who_may_not_post_into_a_conversation_may_not_ding_its_members() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let robot = world.service("robot");
    let channel = create(ConversationKind::CHANNEL, "", &[bob, eve]);
    let news = frame!(ConversationCreated, world.request(ann, Request::ConversationCreate(channel))).conversation;
    assert_eq!(refused(&mut world, bob, to(Target::CONVERSATION, news), nagging()), ErrorCode::FORBIDDEN);
    send(&mut world, ann, to(Target::CONVERSATION, news), nagging());
    send(&mut world, robot, to(Target::CONVERSATION, news), nagging());
}

#[test]
fn a_message_referred_to_must_be_all_recipients_to_have() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let open = ConversationCreate { history: HistoryPolicy::FULL, ..create(ConversationKind::GROUP, "", &[bob]) };
    let open = frame!(ConversationCreated, world.request(ann, Request::ConversationCreate(open))).conversation;
    let group = world.group(ann, &[bob]);
    for conversation in [group, open] {
        world.post(ann, conversation);
        let members = Vec::from([eve.user]);
        let add = MembersAdd { request: 9, conversation, role: Role::MEMBER, members };
        frame!(Done, world.request(ann, Request::MembersAdd(add)));
    }
    let about = |conversation, seq, to: &[Principal]| DingCreate { conversation, seq: Seq(seq), ..ding(1, to) };
    let personal = ConversationId::new(SHARD, 1);
    for (who, create, expected) in [
        (ann, about(ConversationId(0), 1, &[bob]), INVALID),
        (ann, about(group, 0, &[bob]), INVALID),
        (ann, about(group, 2, &[bob]), INVALID),
        (ann, about(group, u64::MAX, &[bob]), INVALID),
        (ann, about(group, 1, &[bob, eve]), INVALID),
        (ann, about(NOWHERE, 1, &[bob]), ErrorCode::NOT_FOUND),
        (ann, about(personal, 1, &[bob]), ErrorCode::NOT_FOUND),
        (eve, about(group, 1, &[bob]), ErrorCode::NOT_FOUND),
    ] {
        assert_eq!(refused(&mut world, who, create.clone(), nagging()), expected, "{create:?}");
    }
    send(&mut world, eve, about(open, 1, &[bob]), nagging());
    send(&mut world, ann, about(group, 1, &[bob]), nagging());
    let push = DingPush::decode(&urgent(&world).1).unwrap();
    assert_eq!((push.conversation, push.seq), (group, Seq(1)));
}

#[test]
fn a_ding_is_nobody_else_s_business() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    let other = world.attach("globex", "mallory").unwrap();
    let other = Principal { tenant: other.tenant, user: other.user, authority: Authority::Admin };
    let watch = Request::DingWatch(DingWatch { request: 9, ding: id, on: 1 });
    let list = Request::DingAttemptList(DingAttemptList { request: 9, ding: id, user: bob.user });
    for who in [eve, other, bob] {
        if who != bob {
            assert_eq!(code(confirm(&mut world, who, id)), ErrorCode::NOT_FOUND);
        }
        assert_eq!(code(recall(&mut world, who, id)), ErrorCode::NOT_FOUND);
        assert_eq!(code(remind(&mut world, who, id, Outlet::APP)), ErrorCode::NOT_FOUND);
        assert_eq!(code(status_of(&mut world, who, id, 0)), ErrorCode::NOT_FOUND);
        assert_eq!(code(world.request(who, watch.clone())), ErrorCode::NOT_FOUND);
        assert_eq!(code(world.request(who, list.clone())), ErrorCode::NOT_FOUND);
        let mine = Request::DingList(DingList { request: 9, before: DingId(0), limit: 10 });
        assert!(frame!(Dings, world.request(who, mine)).entries.is_empty());
        // Of another tenant, or no recipient: nothing is noted.
        if who != bob {
            received(&mut world, who, id);
        }
    }
    let admin = Principal { authority: Authority::Admin, ..eve };
    let DingStatusReply { state, sender, recipients, confirmed, delivered, .. } = status(&mut world, admin, id);
    assert_eq!((state, sender, recipients, confirmed, delivered), (DingState::SENT, ann.user, 1, 0, 0));
    let none = DingAttemptList { request: 9, ding: id, user: eve.user };
    assert_eq!(code(world.request(admin, Request::DingAttemptList(none))), ErrorCode::NOT_FOUND);
}
