//! A table in S3, served by moto over real HTTP.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::publisher::{Publisher, python};
use crate::support::http::{connect, exchange};
use crate::support::kill_harness::wait_until;
use crate::support::process::{Bench, LONG};

/// An S3 service on a free port. It ends on drop, with all its buckets.
struct S3 {
    server: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl S3 {
    fn start() -> Option<S3> {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        let mut command = Command::new(python()?.with_file_name("moto_server"));
        let command = command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1");
        let server = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut address = None;
        let listens = wait_until(LONG, || {
            let text = fs::read_to_string(&log).unwrap();
            let named = text
                .split("http://")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            address = named.and_then(|named| named.trim().parse().ok());
            Ok(address.is_some())
        });
        assert_eq!(listens, Ok(true), "{}", fs::read_to_string(&log).unwrap());
        Some(S3 {
            server,
            address: address.unwrap(),
            _home: home,
        })
    }

    fn bucket(&self, method: &str) {
        let request = format!(
            "{method} /lake HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        let answer = exchange(connect(self.address), &request).unwrap();
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    fn publisher(&self, host: &str) -> Publisher {
        let mut publisher = Publisher::with(Bench::new(), "s3://lake/tables/sft", host, "");
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        publisher.environment = variables
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec();
        publisher
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn two_hosts_share_a_table_in_a_bucket() {
    let Some(s3) = S3::start() else { return };
    s3.bucket("PUT");
    let hosts = ["lake-01", "lake-02"].map(|host| s3.publisher(host));
    for (publisher, run) in hosts.iter().zip(["a", "b"]) {
        publisher.configure("commit_bytes = \"1KiB\"\ncheckpoint_every = 3\n");
        for n in 0..6 {
            publisher.export_runs(&[&format!("{run}{n}")]);
        }
        publisher.once();
        publisher.judge(&format!("{run}3"), "rejected");
        assert_eq!(publisher.once()["retracted"], 1);
    }
    for publisher in &hosts {
        publisher.assert_published();
        publisher.run(&["verify"]).check(0, &[]);
        assert_eq!(publisher.once()["commits"], 0);
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(s3) = S3::start() else { return };
    let publisher = s3.publisher("lake-01");
    publisher.export_runs(&["a"]);
    let missing = [
        "cannot use the table s3://lake/tables/sft",
        "check that the bucket exists",
    ];
    publisher.run(&["once"]).check(1, &missing);
    s3.bucket("PUT");
    publisher.once();
    publisher.assert_published();
}
