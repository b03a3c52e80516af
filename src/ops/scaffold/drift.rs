//! Whether the generated file still holds the topology that the inputs ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::previews::is_preview;
use super::topology::{Project, topology};
use super::{HEADER, Request, command, out, relative};
use crate::bundle::{Bundle, Config};
use crate::error::{Error, Kind, Result};
use crate::ops::drift::Drift;

/// Compares the inputs of `request` with the generated file as `bundle` sees it, by resource key: a
/// target may well give a resource another id.
///
/// Returns how they differ and the command that makes the file anew; nothing when they agree, when
/// there are no inputs, for a preview, and when the file is somebody else's. Fails as `Usage` when
/// the bundle does not include the file, and when it is missing and nothing else has the projects.
pub(crate) fn drift(request: &Request, bundle: &Bundle) -> Result<Option<(Drift, String)>> {
    let config = Config::load(&request.root)?;
    let has_inputs = !request.projects.is_empty() || !config.projects.is_empty();
    if !has_inputs || is_preview(bundle, &config) {
        return Ok(None);
    }
    let out = out(request, &config);
    let shown = relative(&request.root, &out)?;
    if !out.exists() {
        return refuse_missing(request, bundle, &config, &shown).map(|()| None);
    }
    if !std::fs::read_to_string(&out).is_ok_and(|text| text.starts_with(HEADER)) {
        return Ok(None);
    }
    let outline = super::orphans::outline(request, &config, &shown)?;
    if !outline.includes {
        return Err(Error::new(Kind::Usage, format!("the bundle does not include `{shown}`"))
            .code("NOT_INCLUDED")
            .why("what `gen` wrote there would be missing")
            .hint(format!("add `{shown}` to `include:` of databricks.yml")));
    }
    let projects = topology(request, &config, &outline)?;
    let wanted: BTreeMap<String, String> = projects.iter().flat_map(Project::names).collect();
    let written: BTreeMap<String, String> = bundle
        .resources()
        .iter()
        .filter(|resource| resource.place.file() == shown)
        .map(|resource| {
            let name = resource.name.clone().unwrap_or_else(|| resource.label());
            (resource.key.clone(), wanted.get(&resource.key).cloned().unwrap_or(name))
        })
        .collect();
    let inputs = match request.projects.is_empty() {
        true => "lakeforge.yml",
        false => request.named_by.as_deref().unwrap_or("the command line"),
    };
    let names = |keys: BTreeMap<String, String>| keys.into_values().collect::<BTreeSet<_>>();
    let drift = Drift::between((inputs, names(wanted)), (&format!("`{shown}`"), names(written)));
    drift.map(|drift| Ok((drift, command(request, &shown)?))).transpose()
}

/// Refuses to go on without the file `shown` where the bundle lacks a project that belongs in it: it
/// would be taken for one that is to be deleted.
fn refuse_missing(request: &Request, bundle: &Bundle, config: &Config, shown: &str) -> Result<()> {
    let listed = config.projects.iter().map(|project| &project.id);
    let wanted: Vec<&String> = match request.projects.is_empty() {
        true => listed.collect(),
        false => request.projects.iter().collect(),
    };
    let is_there = |id: &String| {
        let name = format!("projects/{id}");
        bundle.resources().iter().any(|resource| resource.name.as_ref() == Some(&name))
    };
    match wanted.into_iter().find(|id| !is_there(id)) {
        None => Ok(()),
        Some(id) => Err(Error::new(Kind::Usage, format!("`{shown}` is missing"))
            .code("NOT_GENERATED")
            .why(format!("the bundle has no project `{id}`, which belongs there"))
            .hint(command(request, shown)?)),
    }
}
