use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use registry_lab::{Fault, Lab, RetryAfter, Rule};

use crate::{Run, crane, nobody, plain, push, transcript};

#[test]
fn crane_speaks_plain_http_to_every_loopback_address() {
    use registry_lab::Address;
    for address in [Address::V4, Address::V6, Address::Name] {
        let lab = Lab::at(address);
        let digest = push(&lab, &nobody(&lab), "image:latest", "1");
        assert_eq!(lab.registry().tag("image", "latest"), Some(digest));
    }
}

#[test]
fn the_log_holds_every_request_in_order() {
    let (lab, run) = tag(None);
    run.unwrap();
    let counts = lab.counts();
    assert_eq!((counts.requests, counts.writes, counts.manifest_gets, counts.tokens), (4, 1, 1, 0));
    expect![[r#"
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest 201
    "#]]
    .assert_eq(&transcript(&lab));
    lab.arm([]);
    assert_eq!((lab.log().len(), lab.counts().requests), (0, 0));
}

/// What crane does with a fault at the write while it sets a tag.
fn tag(fault: Option<Fault>) -> (Lab, Run) {
    let lab = Lab::start();
    let config = nobody(&lab);
    push(&lab, &config, "image:v1", "1");
    lab.arm(fault.map(|fault| Rule::on("PUT */manifests/latest", fault).nth(1)));
    let run = crane(&lab, &config, "tag REGISTRY/image:v1 latest");
    (lab, run)
}

/// crane's error output and what it asked, in which the registry takes one write for each 201.
#[track_caller]
fn check(fault: Fault, expected: &Expect) {
    let (lab, run) = tag(Some(fault));
    assert!(run.ok, "{}", run.err);
    expected.assert_eq(&(plain(&lab, &run.err) + &transcript(&lab)));
}

#[test]
fn a_status_is_answered_instead_of_a_write() {
    check(
        Fault::Status(429),
        &expect![[r#"
        retrying PUT http://REGISTRY/v2/image/manifests/latest: TOOMANYREQUESTS: the registry fails as the test asks
        REGISTRY/image:latest: digest: DIGEST-A size: 423
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest 429
        PUT /v2/image/manifests/latest 201
    "#]],
    );
    check(
        Fault::Status(500),
        &expect![[r#"
        retrying PUT http://REGISTRY/v2/image/manifests/latest: UNKNOWN: the registry fails as the test asks
        REGISTRY/image:latest: digest: DIGEST-A size: 423
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest 500
        PUT /v2/image/manifests/latest 201
    "#]],
    );
}

#[test]
fn after_a_reset_crane_writes_again() {
    check(
        Fault::Reset,
        &expect![[r#"
        retrying Put "http://REGISTRY/v2/image/manifests/latest": read tcp CLIENT->REGISTRY: read: connection reset by peer
        REGISTRY/image:latest: digest: DIGEST-A size: 423
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest -
        PUT /v2/image/manifests/latest 201
    "#]],
    );
}

#[test]
fn after_a_broken_answer_crane_writes_what_the_registry_has() {
    check(
        Fault::Lost,
        &expect![[r#"
        retrying Put "http://REGISTRY/v2/image/manifests/latest": read tcp CLIENT->REGISTRY: read: connection reset by peer
        REGISTRY/image:latest: digest: DIGEST-A size: 423
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest 201
        PUT /v2/image/manifests/latest 201
    "#]],
    );
    check(
        Fault::BreakOff,
        &expect![[r#"
        retrying Put "http://REGISTRY/v2/image/manifests/latest": net/http: HTTP/1.x transport connection broken: unexpected EOF
        REGISTRY/image:latest: digest: DIGEST-A size: 423
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
        GET /v2/ 200
        PUT /v2/image/manifests/latest 201
        PUT /v2/image/manifests/latest 201
    "#]],
    );
}

#[test]
fn a_kill_strikes_the_client_after_the_write() {
    let lab = Lab::start();
    push(&lab, &nobody(&lab), "image:v1", "1");
    lab.arm([Rule::at_write(1, Fault::KillAfter)]);
    let mut command = Command::new("crane");
    command
        .args(["tag", &format!("{}/image:v1", lab.host()), "latest"])
        .process_group(0)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    lab.set_process_group(child.id());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(lab.registry().tag("image", "latest").is_some());
    let ping = || Run::of(Command::new("curl").args(["-sS", &format!("http://{}/v2/", lab.host())]));
    assert_eq!(ping().code, 52, "nothing gets through after a kill");
    lab.arm([]);
    ping().unwrap();
}

#[test]
fn a_paused_client_goes_on() {
    let lab = Lab::start();
    push(&lab, &nobody(&lab), "image:v1", "1");
    lab.arm([Rule::at_write(1, Fault::PauseAfter(Duration::from_secs(1)))]);
    let start = Instant::now();
    let mut command = Command::new("crane");
    command
        .args(["tag", &format!("{}/image:v1", lab.host()), "latest"])
        .process_group(0)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    lab.set_process_group(child.id());
    assert!(child.wait().unwrap().success());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn silence_lasts_until_the_client_gives_up() {
    let lab = Lab::start();
    push(&lab, &nobody(&lab), "image:v1", "1");
    lab.arm([Rule::on("HEAD */manifests/v1", Fault::Silence)]);
    let image = format!("{}/image:v1", lab.host());
    let mut child = Command::new("crane").args(["digest", &image]).spawn().unwrap();
    while lab.counts().manifest_heads == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lab.log().last().unwrap().status, None);
}

#[test]
fn a_write_can_come_late_or_twice() {
    let lab = Lab::start();
    let config = nobody(&lab);
    let old = push(&lab, &config, "image:v1", "1");
    let new = push(&lab, &config, "image:v2", "2");
    lab.arm([Rule::on("PUT */manifests/latest", Fault::Twice(Duration::from_secs(2))).nth(1)]);
    crane(&lab, &config, "tag REGISTRY/image:v1 latest").unwrap();
    crane(&lab, &config, "tag REGISTRY/image:v2 latest").unwrap();
    let latest = || lab.registry().tag("image", "latest");
    assert_eq!(latest(), Some(new));
    let start = Instant::now();
    while latest() != Some(old.clone()) {
        assert!(start.elapsed() < Duration::from_secs(20), "the first write comes once more");
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.arm([Rule::at_write(1, Fault::Late(Duration::from_millis(300)))]);
    let start = Instant::now();
    crane(&lab, &config, "tag REGISTRY/image:v2 latest").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn delays_and_the_clock_belong_to_one_client() {
    let lab = Lab::start().delay(Duration::from_millis(100)).clock_skew(600);
    let other = lab.client();
    let date = |host: &str| {
        let output = Command::new("curl").args(["-sSI", &format!("http://{host}/v2/")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("date: ")).unwrap().to_owned();
        jiff::fmt::rfc2822::parse(&line.replace("GMT", "+0000")).unwrap().timestamp()
    };
    let ahead = date(lab.host()).duration_since(jiff::Timestamp::now()).as_secs();
    assert!((598..=602).contains(&ahead), "{ahead}");
    let ahead = date(other.host()).duration_since(jiff::Timestamp::now()).as_secs();
    assert!((-2..=2).contains(&ahead), "{ahead}");
}

#[test]
fn retry_after_is_a_number_or_a_date() {
    let lab = Lab::start();
    let header = |after: RetryAfter| {
        lab.arm([Rule::on("GET /v2/", Fault::RetryLater(429, after))]);
        let output =
            Command::new("curl").args(["-sSi", &format!("http://{}/v2/", lab.host())]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{text}");
        text.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap().to_owned()
    };
    assert_eq!(header(RetryAfter::Seconds(8)), "8");
    assert!(header(RetryAfter::Date(8)).ends_with(" GMT"));
}

/// What crane does with a fault at its first read of a manifest.
#[track_caller]
fn check_read(fault: Fault, expected: &Expect) {
    let lab = Lab::start();
    let config = nobody(&lab);
    push(&lab, &config, "image:v1", "1");
    lab.arm([Rule::on("GET */manifests/*", fault).nth(1)]);
    let run = crane(&lab, &config, "manifest REGISTRY/image:v1");
    expected.assert_eq(&format!("succeeds {}\n{}{}", run.ok, plain(&lab, &run.err), transcript(&lab)));
}

#[test]
fn what_crane_does_with_faults_of_reads() {
    check_read(
        Fault::Status(503),
        &expect![[r#"
        succeeds true
        retrying GET http://REGISTRY/v2/image/manifests/v1: UNKNOWN: the registry fails as the test asks
        GET /v2/ 200
        GET /v2/image/manifests/v1 503
        GET /v2/image/manifests/v1 200
    "#]],
    );
    check_read(
        Fault::RetryLater(429, RetryAfter::Seconds(1)),
        &expect![[r#"
        succeeds false
        Error: fetching manifest REGISTRY/image:v1: GET http://REGISTRY/v2/image/manifests/v1: TOOMANYREQUESTS: the registry fails as the test asks
        GET /v2/ 200
        GET /v2/image/manifests/v1 429
    "#]],
    );
    check_read(
        Fault::Reset,
        &expect![[r#"
        succeeds true
        retrying read tcp CLIENT->REGISTRY: read: connection reset by peer
        GET /v2/ 200
        GET /v2/image/manifests/v1 -
        GET /v2/image/manifests/v1 200
    "#]],
    );
    check_read(
        Fault::Html(200),
        &expect![[r#"
        succeeds true
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
    "#]],
    );
    check_read(
        Fault::Garbled,
        &expect![[r#"
        succeeds true
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
    "#]],
    );
    check_read(
        Fault::BreakOff,
        &expect![[r#"
        succeeds false
        Error: fetching manifest REGISTRY/image:v1: unexpected EOF
        GET /v2/ 200
        GET /v2/image/manifests/v1 200
    "#]],
    );
}
