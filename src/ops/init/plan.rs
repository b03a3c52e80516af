//! What `init` writes: worked out without writing anything, then written where nothing is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Found, folder_name, id_from};
use crate::bundle::{CONFIG_FILE, Config, ROOT_FILES};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::scaffold::{self, Templates};

/// Templates.
const BUNDLE: &str = "init/databricks.yml";
const CONFIG: &str = "init/lakeforge.yml";

/// What to write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Folder of the bundle, absolute; need not exist.
    pub(crate) root: PathBuf,
    /// Lakebase projects; one for each app by default, else one called like the folder.
    pub(crate) projects: Vec<String>,
    /// Apps.
    pub(crate) apps: Vec<Found>,
    /// Profile of the workspace to develop on.
    pub(crate) profile: Option<String>,
    /// Folder with templates that replace the built-in ones, absolute.
    pub(crate) templates: Option<PathBuf>,
}

/// A file of the plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Planned {
    /// The file, relative to the bundle.
    pub(crate) path: String,
    /// Whether it is, or would be, written; what is there stays as it is.
    pub(crate) write: bool,
    #[serde(skip)]
    text: Option<String>,
}

/// What there is to write.
#[derive(Debug)]
pub(crate) struct Plan {
    gen_request: scaffold::Request,
    /// Files in the order in which they are written.
    pub(crate) files: Vec<Planned>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Context<'a> {
    name: String,
    projects: &'a [String],
    apps: Vec<AppContext<'a>>,
    /// Whether there is a target for pull requests.
    previews: bool,
    profile: Option<&'a str>,
    templates: Option<String>,
}

#[derive(Debug, Serialize)]
struct AppContext<'a> {
    key: String,
    name: &'a str,
    folder: &'a str,
    source: String,
    /// What follows `$` in a reference to its project, in braces.
    project: String,
    migrate: Option<&'a str>,
}

impl Request {
    /// Returns the projects that are written when nobody names any.
    pub(crate) fn usual_projects(&self) -> Vec<String> {
        match &self.apps[..] {
            [] => id_from(&folder_name(&self.root)).into_iter().collect(),
            apps => apps.iter().map(|app| app.name.clone()).collect(),
        }
    }

    /// Returns whether the folder has a bundle.
    pub(crate) fn has_bundle(&self) -> bool {
        ROOT_FILES.iter().any(|name| is_there(&self.root.join(name)))
    }

    /// Returns whether the folder has a `lakeforge.yml`.
    pub(crate) fn has_config(&self) -> bool {
        is_there(&self.root.join(CONFIG_FILE))
    }

    /// Returns the folder of templates as `lakeforge.yml` names it.
    fn templates_shown(&self) -> Result<Option<String>> {
        let shown = |folder: &PathBuf| scaffold::relative(&self.root, folder);
        self.templates.as_ref().map(shown).transpose()
    }

    fn context<'a>(&'a self, projects: &'a [String], with_apps: bool) -> Result<Context<'a>> {
        let previews = with_apps && !self.has_config() && !self.apps.is_empty();
        let root_name = id_from(&folder_name(&self.root));
        let app = |app: &'a Found| {
            let own = projects.iter().find(|project| **project == app.name);
            let project = own.or(projects.first()).map_or("", String::as_str);
            let source =
                if app.folder == "." { ".".to_owned() } else { format!("./{}", app.folder) };
            AppContext {
                key: app.name.replace('-', "_"),
                name: &app.name,
                folder: &app.folder,
                source,
                project: match previews {
                    true => format!("{{var.{}}}", scaffold::project_key(project)),
                    false => {
                        let key = scaffold::project_key(project);
                        format!("{{resources.postgres_projects.{key}.id}}")
                    }
                },
                migrate: app.migrate,
            }
        };
        Ok(Context {
            name: match projects {
                [only] => only.clone(),
                _ => root_name.or_else(|| projects.first().cloned()).unwrap_or_default(),
            },
            projects,
            apps: self.apps.iter().filter(|_| with_apps).map(app).collect(),
            previews,
            profile: self.profile.as_deref().filter(|profile| *profile != "local"),
            templates: self.templates_shown()?,
        })
    }
}

/// Plans what `request` asks for. Writes nothing.
///
/// Fails as `Usage` for names that the platform would refuse, and for whatever `gen` refuses.
pub(crate) fn plan(request: &Request) -> Result<Plan> {
    let root = &request.root;
    let (has_bundle, has_config) = (request.has_bundle(), request.has_config());
    let mut config = Config::load(root)?;
    let projects: Vec<String> = match (has_config, &request.projects[..]) {
        (true, _) => config.projects.iter().map(|project| project.id.clone()).collect(),
        (false, []) => request.usual_projects(),
        (false, named) => named.to_vec(),
    };
    if projects.is_empty() && !has_config {
        return Err(Error::new(Kind::Usage, "the folder's name cannot name a project")
            .hint("lakeforge init --project NAME"));
    }
    let templates = Templates::open(root, request.templates.as_deref(), &config)?;
    let context = request.context(&projects, !has_bundle)?;
    let bundle = match has_bundle {
        true => None,
        false => Some(templates.render(BUNDLE, &context)?),
    };
    let mut text = None;
    if !has_config {
        let rendered = templates.render(CONFIG, &context)?;
        config = Config::parse(root, &rendered)?;
        text = Some(rendered);
    }
    let gen_request = scaffold::Request { root: root.clone(), ..scaffold::Request::default() };
    let resources = scaffold::render_config(&gen_request, &config)?;
    let file = |path: &str, text: Option<String>| Planned {
        path: path.to_owned(),
        write: text.is_some(),
        text,
    };
    let bundle_file = ROOT_FILES.into_iter().find(|name| is_there(&root.join(name)));
    let files = vec![
        file(bundle_file.unwrap_or(ROOT_FILES[0]), bundle),
        file(CONFIG_FILE, text),
        Planned { path: resources.shown.clone(), write: !resources.exists(), text: None },
    ];
    let mut notes = if has_bundle { resources.notes.clone() } else { Vec::new() };
    if has_config && !request.projects.is_empty() && request.projects != projects {
        notes.push(
            "lakeforge.yml is there and names the projects; `--project` changes nothing".into(),
        );
    }
    if has_bundle && !has_config && !request.apps.is_empty() {
        notes.push("the bundle is there; apps that it does not name yet are yours to add".into());
    }
    Ok(Plan { gen_request, files, notes })
}

impl Plan {
    /// Returns whether there is something to write.
    pub(crate) fn writes(&self) -> bool {
        self.files.iter().any(|file| file.write)
    }

    /// Writes what is missing, and returns the files with what became of them.
    ///
    /// Stopped half-way, the same again writes the rest.
    pub(crate) fn apply(mut self) -> Result<Vec<Planned>> {
        let root = self.gen_request.root.clone();
        for file in &mut self.files {
            if let Some(text) = &file.text {
                file.write = scaffold::create(&root.join(&file.path), text)
                    .doing(|| format!("could not write `{}`", file.path))?;
            }
        }
        if let Some(file) = self.files.last_mut().filter(|file| file.write) {
            // From what is on disk now, so that `gen --check` agrees.
            file.write = scaffold::render(&self.gen_request)?.write(false)?;
        }
        Ok(self.files)
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
