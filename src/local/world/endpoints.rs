//! Endpoints: the computes that serve a branch.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branches::BranchRecord;
use super::mask::{Fields, Mask};
use super::operations::{empty, response};
use super::projects::checked_id;
use super::{PageRequest, Started, Work, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::postgres::Size;
use crate::time::Ttl;
use crate::wire::failure::Failure;
use crate::wire::names::{BranchName, EndpointName};
use crate::wire::postgres::{
    Body, Endpoint, EndpointGroup, EndpointList, EndpointSettings, EndpointSpec, EndpointState,
    EndpointStatus, EndpointType, Hosts, PostgresSettings,
};

const LEAST_CU: f64 = 0.5;
const MOST_CU: f64 = 112.0;
/// Largest distance between the two limits of an autoscaling compute.
const WIDEST_CU: f64 = 16.0;
/// Computes that may be active at once in a project, those of the default branch aside.
///
/// Source: the product documentation, "Limitations", read 2026-08.
const MOST_ACTIVE: usize = 20;
/// Read-only endpoints of one branch.
const MOST_READERS: usize = 20;
/// Most computes behind one endpoint.
const LARGEST_GROUP: u32 = 4;
const SUSPEND_LEAST: Duration = Duration::from_secs(60);
const SUSPEND_MOST: Duration = Duration::from_secs(604_800);
/// Idle time before a compute is suspended unless asked otherwise: the five minutes the product
/// documentation names, read 2026-08.
const SUSPEND_AFTER: Ttl = Ttl::from_secs(300);

/// Where an endpoint listens; kept, so that hosts stay valid over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// Loopback address.
    pub(crate) ip: std::net::Ipv4Addr,
    /// Port: 5432 where the endpoint has an address of its own.
    pub(crate) port: u16,
}

/// An endpoint as it is kept, inside its branch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    /// Id in paths.
    pub(crate) id: String,
    /// Unique id; also the name of the cluster of a read-only one.
    pub(crate) uid: String,
    /// What it may be used for.
    #[serde(default)]
    pub(crate) kind: EndpointType,
    /// When it was created.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// Compute limits and suspension.
    pub(crate) settings: EndpointSettings,
    /// Whether it refuses connections.
    pub(crate) disabled: bool,
    /// Where it is in its life cycle.
    pub(crate) state: EndpointState,
    /// When it last served a connection.
    pub(crate) last_active_time: Option<Timestamp>,
    /// Where it listens.
    pub(crate) address: Option<Address>,
    /// The operation that makes its cluster, while it runs; the read-write one is made with the branch.
    #[serde(default)]
    pub(crate) operation: Option<String>,
}

const FIELDS: Fields = Fields {
    leaves: &[
        "spec.endpoint_type",
        "spec.autoscaling_limit_min_cu",
        "spec.autoscaling_limit_max_cu",
        "spec.suspend_timeout_duration",
        "spec.no_suspension",
        "spec.disabled",
        "spec.group",
        "spec.settings.pg_settings",
    ],
    groups: &[
        ("spec.suspension", &["spec.suspend_timeout_duration", "spec.no_suspension"]),
        ("spec.settings", &["spec.settings.pg_settings"]),
    ],
    lists: &["spec.settings.pg_settings"],
};

impl World {
    /// Creates the endpoint `id` of a branch, or changes it when it is there and `replace` is set.
    pub(crate) fn create_endpoint(
        &mut self,
        branch: &BranchName,
        id: Option<&str>,
        spec: &EndpointSpec,
        replace: bool,
        now: Timestamp,
    ) -> Answer<Started> {
        let record = self.branch(&branch.project, &branch.branch)?;
        let id = checked_id("endpoint_id", id)?;
        check_settings(&spec.settings)?;
        if let Some(known) = record.endpoints.iter().find(|endpoint| endpoint.id == id) {
            if !replace {
                return Err(Fault::taken("endpoint with such id already exists"));
            }
            if known.kind != spec.endpoint_type {
                return Err(Fault::invalid("endpoint_type cannot be changed"));
            }
            return self.change_endpoint(&branch.endpoint(id), spec, |_| true, now);
        }
        if spec.endpoint_type == EndpointType::ReadWrite {
            // Every branch has its read-write endpoint from the start, and one is the most it can have.
            return Err(Fault::taken("read_write endpoint already exists"));
        }
        self.check_room(self.settled(branch)?)?;
        let uid = record.uid.clone();
        let mut settings = self.project(&branch.project)?.default_endpoint_settings.clone();
        merge_settings(&mut settings, &spec.settings, |_| true)?;
        let mut endpoint = EndpointRecord::new(id, settings, now);
        endpoint.kind = EndpointType::ReadOnly;
        endpoint.disabled = spec.disabled.unwrap_or(false);
        let operation = self.begin("Endpoint", branch.endpoint(id), now);
        endpoint.operation = Some(operation.clone());
        let work = Work::CreateStandby { branch: uid.clone(), endpoint: endpoint.uid.clone() };
        self.with_branch(&uid, |branch| branch.endpoints.push(endpoint));
        Ok(Started { operation, work })
    }

    /// Refuses one more read-only endpoint where the documented limits are reached.
    fn check_room(&self, branch: &BranchRecord) -> Answer<()> {
        let full = |text: String| Err(Fault::exhausted(text));
        if branch.endpoints.len() > MOST_READERS {
            return full(format!("the branch has {MOST_READERS} read-only endpoints, the most"));
        }
        let exempt = &self.project(&branch.project)?.default_branch;
        let active: usize = self
            .live_of(&branch.project)
            .filter(|branch| branch.id != *exempt)
            .map(|branch| branch.endpoints.iter().filter(|endpoint| endpoint.counts()).count())
            .sum();
        if branch.id != *exempt && active >= MOST_ACTIVE {
            return full(format!("{MOST_ACTIVE} computes of the project are active, the most"));
        }
        Ok(())
    }

    /// Reports that the cluster of a read-only endpoint is there, or why it could not be made.
    ///
    /// An endpoint that could not be made is gone again.
    pub(crate) fn finish_endpoint(
        &mut self,
        uid: &str,
        endpoint_uid: &str,
        result: Result<(), Failure>,
        now: Timestamp,
    ) {
        let Some(branch) = self.branch_by_uid(uid) else { return };
        let Some(endpoint) = branch.endpoint_by_uid(endpoint_uid) else { return };
        let Some(operation) = endpoint.operation.clone() else { return };
        let name = branch.name().endpoint(&endpoint.id);
        let result = match result {
            Ok(()) => Ok(self.with_endpoint(&name, |endpoint| {
                endpoint.operation = None;
                endpoint.state = EndpointState::Active;
                endpoint.last_active_time = Some(now);
            })),
            Err(failure) => {
                self.with_branch(uid, |branch| {
                    branch.endpoints.retain(|endpoint| endpoint.uid != endpoint_uid);
                });
                Err(failure)
            }
        };
        self.finish(&operation, result);
    }

    /// Returns an endpoint as it goes over the wire.
    pub(crate) fn get_endpoint(&self, name: &EndpointName) -> Answer<Endpoint> {
        let (branch, endpoint) = self.endpoint(name)?;
        Ok(endpoint.wire(branch))
    }

    /// Returns a page of the endpoints of a branch.
    pub(crate) fn list_endpoints(
        &self,
        name: &BranchName,
        request: &PageRequest,
    ) -> Answer<EndpointList> {
        let branch = self.branch(&name.project, &name.branch)?;
        let (page, next_page_token) =
            request.cut(branch.endpoints.iter(), |endpoint| endpoint.id.clone())?;
        let endpoints = page.into_iter().map(|endpoint| endpoint.wire(branch)).collect();
        Ok(EndpointList { endpoints, next_page_token })
    }

    /// Changes the fields that `mask` names.
    pub(crate) fn update_endpoint(
        &mut self,
        name: &EndpointName,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Started> {
        let kind = self.endpoint(name)?.1.kind;
        let mask = Mask::parse(mask, &FIELDS, body)?;
        let spec = super::parse::<Body<EndpointSpec>>(body)?.spec;
        check_settings(&spec.settings)?;
        if mask.has("spec.endpoint_type") && spec.endpoint_type != kind {
            return Err(Fault::invalid("endpoint_type cannot be changed"));
        }
        let chosen = |field: &str| match field {
            "pg_settings" => mask.has("spec.settings.pg_settings"),
            field => mask.has(&format!("spec.{field}")),
        };
        self.change_endpoint(name, &spec, chosen, now)
    }

    fn change_endpoint(
        &mut self,
        name: &EndpointName,
        spec: &EndpointSpec,
        chosen: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Answer<Started> {
        let (branch, endpoint) = self.endpoint(name)?;
        if endpoint.operation.is_some() {
            return Err(Fault::busy(name));
        }
        let work = Work::Adjust(branch.uid.clone());
        let mut settings = endpoint.settings.clone();
        let mut wanted = spec.settings.clone();
        wanted.pg_settings = spec.postgres.pg_settings.clone();
        merge_settings(&mut settings, &wanted, &chosen)?;
        let disabled = match spec.disabled {
            Some(disabled) if chosen("disabled") => disabled,
            _ => endpoint.disabled,
        };
        let answer = self.with_endpoint(name, |endpoint| {
            endpoint.settings = settings;
            endpoint.disabled = disabled;
            if disabled {
                endpoint.state = EndpointState::Idle;
            }
            endpoint.update_time = now;
        });
        let operation = self.finished("Endpoint", name, answer, now);
        Ok(Started { operation, work })
    }

    /// Changes an endpoint in place and returns it as a response.
    fn with_endpoint(
        &mut self,
        name: &EndpointName,
        change: impl FnOnce(&mut EndpointRecord),
    ) -> Value {
        let Some(uid) = self.uid(&name.project, &name.branch) else { return Value::Null };
        self.with_branch(&uid, |branch| {
            let endpoint =
                branch.endpoints.iter_mut().find(|endpoint| endpoint.id == name.endpoint);
            endpoint.map(change);
        });
        self.get_endpoint(name).map_or(Value::Null, |endpoint| response(&endpoint))
    }

    /// Deletes a read-only endpoint; the read-write one lives as long as its branch.
    pub(crate) fn delete_endpoint(
        &mut self,
        name: &EndpointName,
        now: Timestamp,
    ) -> Answer<Started> {
        let (branch, endpoint) = self.endpoint(name)?;
        if branch.protected {
            return Err(Fault::bad_request("cannot delete endpoint of a protected branch"));
        }
        if endpoint.kind == EndpointType::ReadWrite {
            return Err(Fault::managed_by_parent(format!(
                "Cannot delete read-write endpoint '{name}'. Read-write endpoints cannot be deleted."
            )));
        }
        if endpoint.operation.is_some() {
            return Err(Fault::busy(name));
        }
        let (uid, gone) = (branch.uid.clone(), endpoint.uid.clone());
        self.with_branch(&uid, |branch| branch.endpoints.retain(|endpoint| endpoint.uid != gone));
        let operation = self.finished("Endpoint", name, empty(), now);
        Ok(Started { operation, work: Work::RemoveStandby(gone) })
    }

    /// Returns an endpoint with its branch.
    pub(crate) fn endpoint(&self, name: &EndpointName) -> Answer<(&BranchRecord, &EndpointRecord)> {
        let branch = self.branch(&name.project, &name.branch)?;
        let endpoint = branch.endpoints.iter().find(|endpoint| endpoint.id == name.endpoint);
        Ok((branch, endpoint.ok_or_else(|| Fault::missing("endpoint"))?))
    }
}

impl EndpointRecord {
    /// Creates a read-write endpoint that is not provisioned yet.
    pub(super) fn new(id: &str, settings: EndpointSettings, now: Timestamp) -> Self {
        EndpointRecord {
            id: id.to_owned(),
            uid: ids::readable("ep"),
            kind: EndpointType::ReadWrite,
            create_time: now,
            update_time: now,
            settings,
            disabled: false,
            state: EndpointState::Init,
            last_active_time: None,
            address: None,
            operation: None,
        }
    }

    /// Returns the name of the cluster behind it: that of the branch, or a standby of its own.
    pub(crate) fn compute<'a>(&'a self, branch: &'a BranchRecord) -> &'a str {
        match self.kind {
            EndpointType::ReadWrite => &branch.uid,
            EndpointType::ReadOnly => &self.uid,
        }
    }

    /// Returns the size of its compute.
    pub(crate) fn size(&self) -> Size {
        Size(self.settings.autoscaling_limit_max_cu.unwrap_or(1.0))
    }

    /// Says whether it counts as an active compute.
    fn counts(&self) -> bool {
        matches!(self.state, EndpointState::Init | EndpointState::Active)
    }

    /// Returns the endpoint as it goes over the wire.
    pub(super) fn wire(&self, branch: &BranchRecord) -> Endpoint {
        let parent = branch.name();
        let ready = self.state != EndpointState::Init;
        let mut settings = self.settings.clone();
        let pg_settings = std::mem::take(&mut settings.pg_settings);
        Endpoint {
            name: parent.endpoint(&self.id),
            endpoint_id: Some(self.id.clone()),
            uid: self.uid.clone(),
            parent: Some(parent),
            create_time: Some(self.create_time),
            update_time: Some(self.update_time),
            status: EndpointStatus {
                endpoint_id: self.id.clone(),
                endpoint_type: self.kind,
                current_state: self.state,
                pending_state: (!ready).then_some(EndpointState::Active),
                disabled: self.disabled,
                settings,
                postgres: PostgresSettings { pg_settings },
                last_active_time: self.last_active_time,
                hosts: self.address.filter(|_| ready).map(|address| address.hosts(self.kind)),
            },
        }
    }

    /// Returns how long it may be idle before its compute is suspended.
    pub(crate) fn suspend_after(&self) -> Option<Duration> {
        match self.settings.no_suspension {
            Some(true) => None,
            _ => Some(self.settings.suspend_timeout_duration.unwrap_or(SUSPEND_AFTER).0),
        }
    }
}

impl Address {
    /// Returns the hosts of an endpoint. The pooled ones are the direct one: sessions are passed through.
    fn hosts(self, kind: EndpointType) -> Hosts {
        let host = Some(self.ip.to_string());
        let reads = host.clone().filter(|_| kind == EndpointType::ReadOnly);
        Hosts {
            read_only_host: reads.clone(),
            read_write_pooled_host: host.clone().filter(|_| kind == EndpointType::ReadWrite),
            read_only_pooled_host: reads,
            host,
            port: (self.port != 5432).then_some(self.port),
        }
    }
}

/// Refuses settings outside the documented bounds.
pub(super) fn check_settings(settings: &EndpointSettings) -> Answer<()> {
    let EndpointSettings {
        autoscaling_limit_min_cu: least, autoscaling_limit_max_cu: most, ..
    } = settings;
    for (name, limit) in [("autoscaling_limit_min_cu", least), ("autoscaling_limit_max_cu", most)] {
        if limit.is_some_and(|limit| !(LEAST_CU..=MOST_CU).contains(&limit)) {
            return Err(Fault::invalid(format!("{name} must be between 0.5 and 112")));
        }
    }
    if let Some(group) = &settings.group {
        check_group(group)?;
    }
    if settings.no_suspension == Some(false) {
        return Err(Fault::invalid("no_suspension can only be true"));
    }
    if settings.no_suspension.is_some() && settings.suspend_timeout_duration.is_some() {
        return Err(Fault::invalid(
            "only one of suspend_timeout_duration and no_suspension can be set",
        ));
    }
    if let Some(Ttl(timeout)) = settings.suspend_timeout_duration
        && !(SUSPEND_LEAST..=SUSPEND_MOST).contains(&timeout)
    {
        return Err(Fault::invalid("suspend_timeout_duration must be between 60s and 604800s"));
    }
    Ok(())
}

fn check_group(group: &EndpointGroup) -> Answer<()> {
    if group.min != group.max || !group.max.is_none_or(|max| (1..=LARGEST_GROUP).contains(&max)) {
        return Err(Fault::invalid("group.min and group.max must be equal, and between 1 and 4"));
    }
    Ok(())
}

/// Returns settings with the defaults filled in.
pub(super) fn effective_settings(wanted: &EndpointSettings) -> EndpointSettings {
    let mut settings = wanted.clone();
    let least = settings.autoscaling_limit_min_cu;
    let most = settings.autoscaling_limit_max_cu;
    settings.autoscaling_limit_min_cu = least.or(most.map(|most| most.min(1.0))).or(Some(1.0));
    settings.autoscaling_limit_max_cu = most.or(least.map(|least| least.max(1.0))).or(Some(1.0));
    if settings.no_suspension.is_none() && settings.suspend_timeout_duration.is_none() {
        settings.suspend_timeout_duration = Some(SUSPEND_AFTER);
    }
    settings
}

/// Takes over from `wanted` the fields it holds and `chosen` names; the members of a one-of group displace each other.
pub(super) fn merge_settings(
    settings: &mut EndpointSettings,
    wanted: &EndpointSettings,
    chosen: impl Fn(&str) -> bool,
) -> Answer<()> {
    if wanted.autoscaling_limit_min_cu.is_some() && chosen("autoscaling_limit_min_cu") {
        settings.autoscaling_limit_min_cu = wanted.autoscaling_limit_min_cu;
    }
    if wanted.autoscaling_limit_max_cu.is_some() && chosen("autoscaling_limit_max_cu") {
        settings.autoscaling_limit_max_cu = wanted.autoscaling_limit_max_cu;
    }
    if wanted.suspend_timeout_duration.is_some() && chosen("suspend_timeout_duration") {
        settings.suspend_timeout_duration = wanted.suspend_timeout_duration;
        settings.no_suspension = None;
    }
    if wanted.no_suspension.is_some() && chosen("no_suspension") {
        settings.no_suspension = wanted.no_suspension;
        settings.suspend_timeout_duration = None;
    }
    if chosen("pg_settings") {
        settings.pg_settings = wanted.pg_settings.clone();
    }
    if wanted.group.is_some() && chosen("group") {
        settings.group.clone_from(&wanted.group);
    }
    let several = settings.group.as_ref().and_then(|group| group.max).is_some_and(|max| max > 1);
    if several && settings.no_suspension != Some(true) {
        return Err(Fault::invalid("an endpoint with several computes needs no_suspension"));
    }
    check_limits(settings)
}

fn check_limits(settings: &EndpointSettings) -> Answer<()> {
    let least = settings.autoscaling_limit_min_cu.unwrap_or(1.0);
    let most = settings.autoscaling_limit_max_cu.unwrap_or(1.0);
    if least > most {
        return Err(Fault::invalid(
            "autoscaling_limit_min_cu must not be larger than autoscaling_limit_max_cu",
        ));
    }
    if most - least > WIDEST_CU {
        return Err(Fault::invalid(
            "autoscaling_limit_max_cu must be at most 16 above autoscaling_limit_min_cu",
        ));
    }
    Ok(())
}
