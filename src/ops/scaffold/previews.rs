//! Targets for pull requests: they hold apps, and none of the projects that the apps use.

use crate::bundle::{Bundle, Config, Outline};
use crate::error::{Error, Kind, Result, nearest};

/// Returns the targets that the resources are written for; nothing when that is all of them.
///
/// Fails as `Usage` for a preview that the bundle does not have, and when it has nothing else.
pub(super) fn targets(config: &Config, outline: &Outline) -> Result<Vec<String>> {
    if config.previews.is_empty() || !outline.exists {
        return Ok(Vec::new());
    }
    let names = || outline.targets.iter().map(|(name, _)| name.as_str());
    for preview in &config.previews {
        if !names().any(|name| name == preview) {
            let what = format!("lakeforge.yml: `previews` names the target `{preview}`");
            let error = Error::new(Kind::Usage, what).why("the bundle has no such target");
            return Err(match nearest(preview, names()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        }
    }
    let others = names().filter(|name| !config.previews.iter().any(|preview| preview == name));
    let others: Vec<String> = others.map(str::to_owned).collect();
    match others.is_empty() {
        true => Err(Error::new(Kind::Usage, "every target of the bundle is a preview")
            .why("no target would hold the projects")),
        false => Ok(others),
    }
}

/// Fails as `Refused` when the target is a preview and holds a project.
pub(crate) fn refuse_projects(bundle: &Bundle, config: &Config) -> Result<()> {
    let is_project = |kind: &str| kind == "postgres_projects";
    match bundle.resources().iter().find(|resource| is_project(&resource.kind)) {
        Some(project) if is_preview(bundle, config) => {
            let target = &bundle.target.name;
            let what = format!("the preview `{target}` holds the project `{}`", project.key);
            Err(Error::new(Kind::Refused, what)
                .code("PROJECT_IN_PREVIEW")
                .why(format!("it is written at {}", project.place))
                .why("whoever removes a preview would remove it from everybody")
                .hint("lakeforge gen"))
        }
        _ => Ok(()),
    }
}

/// Returns whether the target of `bundle` is a preview.
pub(crate) fn is_preview(bundle: &Bundle, config: &Config) -> bool {
    config.previews.contains(&bundle.target.name)
}
