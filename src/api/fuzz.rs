//! Whatever a workspace answers: it is read or refused, and what is read can be used.

use std::time::Duration;

use proptest::prelude::*;
use proptest::string::string_regex;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::client::{Client, read_failure};
use super::error::Error;
use crate::auth::{Login, Origin, Setting, Settings};
use crate::wire::apps::{App, AppList, Deployment};
use crate::wire::identity::{AuthorizationServer, Discovery, Me, Token};
use crate::wire::names::{BranchName, EndpointName, ProjectName};
use crate::wire::postgres::{
    Branch, BranchList, Credential, Endpoint, EndpointList, Operation, Project, ProjectList,
};
use crate::wire::roles::{Database, DatabaseList, Role, RoleList};

/// Keys of real answers.
const KEYS: [&str; 40] = [
    "name",
    "uid",
    "status",
    "spec",
    "branches",
    "projects",
    "endpoints",
    "apps",
    "roles",
    "databases",
    "next_page_token",
    "hosts",
    "host",
    "read_only_host",
    "port",
    "endpoint_type",
    "current_state",
    "disabled",
    "default_branch",
    "expire_time",
    "create_time",
    "source_branch",
    "source_branch_time",
    "ttl",
    "token",
    "access_token",
    "token_type",
    "expires_in",
    "token_endpoint",
    "oidc_endpoint",
    "done",
    "error",
    "response",
    "metadata",
    "error_code",
    "message",
    "details",
    "compute_status",
    "state",
    "userName",
];

/// A text as answers hold it, or nearly.
fn text() -> impl Strategy<Value = String> {
    let times = "(-?[0-9]{1,5})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})";
    let names = "projects/[a-z/%.-]{0,9}(/branches/[a-z/.-]{0,6}(/endpoints/[a-z/]{0,5}(/operations/[a-z0-9]{0,4})?)?)?";
    let codes =
        "NOT_FOUND|ALREADY_EXISTS|UNAUTHENTICATED|READY|ACTIVE|ENDPOINT_TYPE_READ_WRITE|FAILED";
    let lengths = "-?[0-9]{0,22}(\\.[0-9]{1,12})?s";
    let of = |pattern: &str| string_regex(pattern).expect("the pattern is a constant");
    prop_oneof![of(times), of(names), of(codes), of(lengths), any::<String>()]
}

/// A document with the keys of real answers and anything in them.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        let key = prop_oneof![
            8 => proptest::sample::select(&KEYS[..]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => proptest::collection::vec((key, inner), 0..10)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn client() -> Client {
    let origin = || Origin::Variable("DATABRICKS_X");
    let settings = Settings {
        host: Some(Setting::new("https://w.test".to_owned(), origin())),
        token: Some(Setting::new("dapi".to_owned().into(), origin())),
        ..Settings::default()
    };
    Client::with_budget(Login::resolve(settings).unwrap(), Duration::ZERO, None)
}

/// Reads `bytes` as a `T`; what is refused becomes an error that people can read.
fn read<T: DeserializeOwned + std::fmt::Debug>(client: &Client, bytes: &[u8]) {
    match client.read::<T>("GET /x", bytes) {
        Ok(read) => drop(format!("{read:?}")),
        Err(error) => shown(error),
    }
}

fn shown(error: Error) {
    let error = crate::error::Error::from(error);
    assert!(!error.to_json().to_string().is_empty() && error.kind().exit_code() > 0);
}

fn read_all(client: &Client, bytes: &[u8]) {
    read::<Project>(client, bytes);
    read::<ProjectList>(client, bytes);
    read::<Branch>(client, bytes);
    read::<BranchList>(client, bytes);
    read::<Endpoint>(client, bytes);
    read::<EndpointList>(client, bytes);
    read::<Operation>(client, bytes);
    read::<Credential>(client, bytes);
    read::<App>(client, bytes);
    read::<AppList>(client, bytes);
    read::<Deployment>(client, bytes);
    read::<Role>(client, bytes);
    read::<RoleList>(client, bytes);
    read::<Database>(client, bytes);
    read::<DatabaseList>(client, bytes);
    read::<Me>(client, bytes);
    read::<Discovery>(client, bytes);
    read::<AuthorizationServer>(client, bytes);
    read::<Token>(client, bytes);
}

#[test]
fn nothing_that_a_workspace_answers_breaks_the_client() {
    let client = client();
    let cases = ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() };
    proptest!(cases, |(document in document(), cut in 0..400_usize, status in 100..600_u16)| {
        let whole = document.to_string();
        let mut part = whole.clone().into_bytes();
        part.truncate(cut);
        for bytes in [whole.as_bytes(), &part] {
            read_all(&client, bytes);
            let status = StatusCode::from_u16(status).unwrap();
            let failure = read_failure(status, bytes);
            shown(Error::Operation { name: "x".to_owned(), failure: Box::new(failure.clone()) });
            shown(Error::Refused {
                status: status.as_u16(),
                request_id: failure.request_id(),
                failure: Box::new(failure),
                retry_after: None,
                login_hint: String::new(),
            });
        }
    });
}

#[test]
fn a_name_is_read_as_it_is_written_or_refused() {
    let cases = ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() };
    proptest!(cases, |(text in text())| {
        if let Ok(name) = text.parse::<ProjectName>() { prop_assert_eq!(name.to_string(), text.clone()); }
        if let Ok(name) = text.parse::<BranchName>() { prop_assert_eq!(name.to_string(), text.clone()); }
        if let Ok(name) = text.parse::<EndpointName>() { prop_assert_eq!(name.to_string(), text.clone()); }
    });
}
