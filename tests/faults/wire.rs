//! The hub misbehaves, or what stands between: the daemon waits, says so once, and goes on where it stood.

use tokio::net::TcpListener;

use crate::between::{Between, Misdeed};
use crate::cases;
use crate::fleet::Fleet;
use crate::health::{Footprint, assert_few_complaints, assert_said_once, complaints};
use crate::support::World;

/// Twins that are to be written while the hub misbehaves.
const TWINS: usize = 16;
/// Answers that go wrong before it ends: nobody answered for long, or every kind of request.
const MET_IN_SILENCE: usize = 3;
const MET_QUERIES: usize = 2;

cases! {survives:
    a_hub_that_resets_connections_at_once => Misdeed::ResetAtOnce,
    a_hub_that_speaks_no_tls => Misdeed::NoTls,
    a_hub_that_is_silent_in_the_handshake => Misdeed::SilentHandshake,
    a_hub_that_never_answers => Misdeed::Silence,
    a_hub_that_falls_silent_within_a_body => Misdeed::SilenceInBody,
    a_hub_that_answers_byte_by_byte => Misdeed::Trickle,
    a_hub_that_resets_in_the_place_of_answers => Misdeed::Reset,
    a_hub_that_resets_when_the_write_is_done => Misdeed::ResetWhenDone,
    a_hub_that_resets_within_a_body => Misdeed::ResetInBody,
    a_hub_that_closes_before_the_end_of_a_body => Misdeed::Truncated,
    a_hub_that_speaks_no_http => Misdeed::NoHttp,
    a_hub_that_answers_broken_json => Misdeed::NoJson,
    a_hub_that_answers_json_of_another_shape => Misdeed::OtherJson,
    a_web_page_in_the_place_of_a_hub => Misdeed::WebPage,
    a_body_without_end => Misdeed::Flood,
    header_fields_without_end => Misdeed::FloodOfFields,
    a_redirect => Misdeed::Redirect,
    the_twin_of_another_device => Misdeed::OtherTwin,
    a_page_cut_in_half => Misdeed::HalfPage,
    a_continuation_that_loops => Misdeed::LoopingContinuation,
    a_retry_after_of_thirty_years => Misdeed::LongRetryAfter,
}

async fn survives(misdeed: Misdeed) {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}", trap.local_addr().unwrap());
    let between = Between::start(&world, "state", "between.json", &elsewhere).await;
    let hub = world.client("state");
    let mut daemon = world.run_on("between.json", &["--sweep", "1s"]).await;
    fleet.assert_accounted(&daemon, &hub).await;
    let before = Footprint::of(&daemon);
    assert_eq!(complaints(&daemon).len(), 0, "{}", daemon.stderr());

    between.misbehave(Some(misdeed));
    fleet.rise(&world);
    let is_silent = matches!(
        misdeed,
        Misdeed::SilentHandshake
            | Misdeed::Silence
            | Misdeed::SilenceInBody
            | Misdeed::Trickle
            | Misdeed::ResetAtOnce
            | Misdeed::NoTls
    );
    let enough = || {
        let seen = between.seen();
        if is_silent { seen.met >= MET_IN_SILENCE } else { seen.met_queries >= MET_QUERIES }
    };
    daemon.wait_for("answers that went wrong", enough).await;
    assert_eq!((daemon.get("/livez").await.0, daemon.get("/readyz").await.0), (200, 200));
    between.misbehave(None);

    fleet.assert_accounted(&daemon, &hub).await;
    let seen = between.seen();
    assert!(seen.unguarded.is_empty(), "{:?}", seen.unguarded);
    assert_few_complaints(&daemon, 0, TWINS + 2);
    assert_said_once(&daemon, 0);
    before.assert_back(&daemon, TWINS).await;
    let redirected = tokio::time::timeout(std::time::Duration::ZERO, trap.accept()).await;
    assert!(redirected.is_err(), "a redirect was followed, with the hub's token");
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}
