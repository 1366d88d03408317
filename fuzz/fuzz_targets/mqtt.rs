//! Any bytes on a device's connection, in any pieces: the connection ends without a panic, everything it sends is whole
//! packets, nothing but a refusal is sent to whoever was not admitted, and the pieces make no difference.
//!
//! The first byte chooses what was sent before, whole and good: nothing, CONNECT, or CONNECT and SUBSCRIBE to all there
//! is. The second one gives how the pieces are cut.

#![no_main]

use std::sync::{Arc, LazyLock};

use geminid::device::DeviceConnection;
use geminid::emulator::auth::{Gate, Policies};
use geminid::emulator::identity::{AuthenticationSpec, IdentitySpec, SharedKey};
use geminid::emulator::if_match::IfMatch;
use geminid::emulator::mqtt::{Desk, connection};
use geminid::emulator::trial::{Trial, TrialOptions};
use geminid::emulator::HubHandle;
use geminid::twin::DeviceId;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";
/// What a hub could answer to one input at most: each request is shorter than its answer of a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// A good CONNECT of `d1`.
static CONNECT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = format!("HostName=localhost;DeviceId=d1;SharedAccessKey={KEY}");
    let device = DeviceConnection::parse(&text).expect("a connection string");
    let mut packet = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xC2, 0, 0];
    for part in ["d1", "localhost/d1/?api-version=2021-04-12", device.token(1_000).expose_secret()] {
        packet.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
        packet.extend(part.as_bytes());
    }
    framed(0x10, &packet)
});

/// A good SUBSCRIBE to what devices are told.
static SUBSCRIBE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut packet = vec![0, 1];
    for filter in ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"] {
        packet.extend(u16::try_from(filter.len()).expect("short").to_be_bytes());
        packet.extend(filter.as_bytes());
        packet.push(1);
    }
    framed(0x82, &packet)
});

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).expect("seven bits");
        left /= 128;
        packet.push(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// The packets in `bytes`: first byte and content. Panics when they do not end with a packet.
fn packets(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        let (mut length, mut place) = (0_usize, 0);
        loop {
            let digit = rest[place];
            length |= usize::from(digit & 127) << (7 * place);
            place += 1;
            if digit & 128 == 0 {
                break;
            }
        }
        found.push((kind, &rest[place..place + length]));
        bytes = &rest[place + length..];
    }
    found
}

/// What a new hub with `d1` sends when it is sent `data` in pieces of `piece` bytes.
async fn exchange(data: &[u8], piece: usize) -> Vec<u8> {
    let mut seed = 0_u8;
    let random = Box::new(move |bytes: &mut [u8]| {
        seed = seed.wrapping_add(1);
        bytes.fill(seed);
    });
    let hub = HubHandle::ephemeral(random, || Timestamp::UNIX_EPOCH);
    let id = DeviceId::new("d1").expect("an id");
    let key = || SharedKey::new(KEY).expect("a key");
    let spec = IdentitySpec { authentication: AuthenticationSpec::Sas(Some((key(), key()))), ..IdentitySpec::default() };
    let put = hub.write(|registry, random, now| registry.put_identity(&id, spec, &IfMatch::Absent, random, now));
    put.await.expect("the first device fits");
    let gate = Gate::new(Policies::generate(&mut |bytes| bytes.fill(3)), "localhost", 443);
    let trial = Trial::new(&TrialOptions::default());
    let desk = Desk { hub: hub.clone(), gate: Arc::new(gate), trial };
    let (near, far) = tokio::io::duplex(256);
    let (mut reader, mut writer) = tokio::io::split(near);
    let write = async move {
        for part in data.chunks(piece) {
            // The hub may have closed before the end.
            if writer.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        writer.shutdown().await.ok();
    };
    let mut answers = Vec::new();
    let read = async {
        reader.read_to_end(&mut answers).await.expect("a pipe is read to its end");
    };
    let stop = CancellationToken::new();
    tokio::join!(connection::serve(&desk, far, stop), write, read);
    let device = hub.device(&id).await.expect("the device stays");
    assert!(!device.identity.connected, "nobody is connected any more");
    assert_eq!(device.twin.etag_number, 1, "a device writes nothing but what it reports");
    answers
}

fuzz_target!(|input: &[u8]| {
    let [before, cut, data @ ..] = input else { return };
    let mut sent = Vec::new();
    if before % 3 > 0 {
        sent.extend_from_slice(&CONNECT);
    }
    if before % 3 > 1 {
        sent.extend_from_slice(&SUBSCRIBE);
    }
    sent.extend_from_slice(data);
    let answers = RUNTIME.block_on(exchange(&sent, usize::from(*cut) + 1));
    assert!(answers.len() <= ANSWER_BYTES_MAX);
    let packets = packets(&answers);
    match packets.first() {
        None => assert!(before % 3 == 0, "a good CONNECT is answered"),
        Some((kind, content)) => {
            assert_eq!((*kind, content.len()), (0x20, 2), "a CONNACK comes first");
            assert!(content[1] == 0 || packets.len() == 1, "nothing follows a refusal");
            assert!(before % 3 == 0 || content[1] == 0, "a good CONNECT is accepted");
        }
    }
    assert!(packets.iter().skip(1).all(|(kind, _)| *kind != 0x20), "one CONNACK");
    let whole = RUNTIME.block_on(exchange(&sent, sent.len().max(1)));
    assert!(answers == whole, "the pieces make no difference");
});
