//! Which workspace, and which way to log in to it: pure but for reading the profile files.

use std::path::{Path, PathBuf};

use super::host::{Host, check_private};
use super::http;
use super::profile::{Profile, ProfileFile};
use super::settings::{GithubOidc, Origin, Setting, Settings};
use crate::error::{Error, Kind, Result, nearest};
use crate::secret::Secret;

/// The profile of the embedded workspace.
pub(super) const LOCAL_PROFILE: &str = "local";
/// The profile that is read when nothing says which.
const DEFAULT_PROFILE: &str = "DEFAULT";

/// A workspace and the way to log in to it.
#[derive(Debug)]
pub(super) struct Choice {
    /// The workspace.
    pub(super) host: Host,
    /// The profile that was read.
    pub(super) profile: Option<String>,
    /// The file it was read from.
    pub(super) profile_file: Option<PathBuf>,
    /// Certificate authority of the embedded workspace, when this is one.
    pub(super) certificate: Option<PathBuf>,
    /// The way to log in.
    pub(super) strategy: Strategy,
}

/// A way to log in, with all it needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// A token that is used as it is.
    Token {
        /// The token.
        token: Secret<String>,
        /// Where it was found.
        origin: Origin,
    },
    /// OAuth with the secret of a service principal.
    ServicePrincipal {
        /// Its application id.
        client_id: String,
        /// Its secret.
        secret: Secret<String>,
        /// Where the secret was found.
        origin: Origin,
    },
    /// The login that the Databricks CLI keeps.
    DatabricksCli {
        /// The CLI.
        cli: PathBuf,
        /// Profile to ask it for, instead of the host.
        profile: Option<String>,
    },
    /// The identity of a GitHub Actions job.
    Github {
        /// Where to ask for it.
        github: GithubOidc,
        /// Service principal to become.
        client_id: Option<String>,
        /// Audience to ask for, instead of the token endpoint.
        audience: Option<String>,
    },
    /// An identity token of the environment.
    Environment {
        /// The identity token.
        token: Secret<String>,
        /// Service principal to become.
        client_id: Option<String>,
    },
}

impl Strategy {
    /// Returns the secret it starts with, if any.
    pub(super) fn secret(&self) -> Option<&Secret<String>> {
        match self {
            Strategy::Token { token, .. } | Strategy::Environment { token, .. } => Some(token),
            Strategy::ServicePrincipal { secret, .. } => Some(secret),
            Strategy::Github { github, .. } => Some(&github.token),
            Strategy::DatabricksCli { .. } => None,
        }
    }

    /// Returns the name the SDKs give this way.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Strategy::Token { .. } => "pat",
            Strategy::ServicePrincipal { .. } => "oauth-m2m",
            Strategy::DatabricksCli { .. } => "databricks-cli",
            Strategy::Github { .. } => "github-oidc",
            Strategy::Environment { .. } => "env-oidc",
        }
    }
}

/// Chooses workspace and strategy.
///
/// What is set earlier wins: flag, environment, profile. Two exceptions, because a command must
/// not reach a workspace its user did not name: a profile named by a flag stands alone, and a
/// profile for another host than the one in effect is refused.
pub(super) fn choose(mut settings: Settings) -> Result<Choice> {
    if settings.profile.as_ref().is_some_and(|profile| matches!(profile.origin, Origin::Flag(_))) {
        settings.forget_environment();
    }
    let found = find_profile(&settings)?;
    let (name, profile_file) = match &found {
        Some(found) => (Some(found.name.clone()), Some(found.file.clone())),
        None => (None, None),
    };
    if let Some(found) = found {
        settings.fill(found)?;
    }
    let Some(host) = settings.host.clone() else {
        return Err(Error::new(Kind::Auth, "no workspace to talk to")
            .why("no host is set, and there is no default profile")
            .hint("lakeforge local start, then `-p local`; or databricks auth login --host <workspace>"));
    };
    let (host, host_origin) = (parse_host(&host)?, host.origin);
    check_private(host.url()).map_err(|why| {
        Error::new(Kind::Refused, why)
            .code("NOT_ENCRYPTED")
            .why(format!("it is set by {}", host_origin))
            .hint("write `https://`")
    })?;
    let files = profile_file.iter().chain(&settings.local_config_file);
    let certificate = files.filter_map(|file| certificate(file, &host)).next();
    let strategy = strategy(settings, name.as_deref())?;
    Ok(Choice { host, profile: name, profile_file, certificate, strategy })
}

/// Where the embedded workspace keeps the certificate of its authority, beside its profile file.
const CERTIFICATE: &str = "tls/ca.pem";

/// Returns the certificate authority of the embedded workspace whose profile file is `file`, when it
/// is the workspace at `host`.
fn certificate(file: &Path, host: &Host) -> Option<PathBuf> {
    let profiles = ProfileFile::read(file).ok()?;
    let its_host = Host::parse(profiles.get(LOCAL_PROFILE)?.get("host")?).ok()?;
    let certificate = file.parent()?.join(CERTIFICATE);
    let is_it = host.is_loopback() && its_host.url() == host.url();
    (is_it && certificate.is_file()).then_some(certificate)
}

/// A profile and the file it was found in.
struct Found {
    name: String,
    file: PathBuf,
    keys: Profile,
}

fn find_profile(settings: &Settings) -> Result<Option<Found>> {
    let read = |path: &Option<PathBuf>| match path {
        Some(path) => ProfileFile::read(path),
        None => Ok(ProfileFile::default()),
    };
    let found = |file: &ProfileFile, path: &Option<PathBuf>, name: &str| {
        let keys = file.get(name)?.clone();
        Some(Found { name: name.to_owned(), file: path.clone().unwrap_or_default(), keys })
    };
    if settings.profile.is_none() && settings.is_anything_set() {
        return Ok(None);
    }
    let file = read(&settings.config_file)?;
    let Some(wanted) = &settings.profile else {
        return match file.default_profile() {
            Some(name) => found(&file, &settings.config_file, name)
                .map(Some)
                .ok_or_else(|| unknown_profile(&file, settings, name, "default_profile")),
            None => Ok(found(&file, &settings.config_file, DEFAULT_PROFILE)),
        };
    };
    if let Some(found) = found(&file, &settings.config_file, &wanted.value) {
        return Ok(Some(found));
    }
    if wanted.value == LOCAL_PROFILE && settings.local_config_file.is_some() {
        let local = read(&settings.local_config_file)?;
        return found(&local, &settings.local_config_file, LOCAL_PROFILE)
            .map(Some)
            .ok_or_else(http::not_running);
    }
    Err(unknown_profile(&file, settings, &wanted.value, &wanted.origin.to_string()))
}

fn unknown_profile(file: &ProfileFile, settings: &Settings, name: &str, asked: &str) -> Error {
    let path = settings.config_file.as_deref().unwrap_or(Path::new("~/.databrickscfg"));
    let error = Error::new(Kind::Usage, format!("{} has no profile `{name}`", path.display()))
        .why(format!("it is named by {asked}"));
    match nearest(name, file.names()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("databricks auth login --profile {name} --host <workspace>")),
    }
}

impl Settings {
    /// Returns whether something other than a profile says where to go or how to log in.
    fn is_anything_set(&self) -> bool {
        self.host.is_some()
            || self.token.is_some()
            || self.client_id.is_some()
            || self.client_secret.is_some()
            || self.auth_type.is_some()
    }

    /// Leaves out what the environment says of host and login.
    fn forget_environment(&mut self) {
        fn forget<T>(setting: &mut Option<Setting<T>>) {
            if setting.as_ref().is_some_and(|set| matches!(set.origin, Origin::Variable(_))) {
                *setting = None;
            }
        }
        forget(&mut self.host);
        forget(&mut self.token);
        forget(&mut self.client_id);
        forget(&mut self.client_secret);
        forget(&mut self.auth_type);
        forget(&mut self.token_audience);
        forget(&mut self.oidc_token);
    }

    /// Fills in what the profile knows and nothing before it said.
    fn fill(&mut self, found: Found) -> Result<()> {
        let origin = Origin::Profile { name: found.name, file: found.file };
        let take = |key: &str| {
            found.keys.get(key).map(|value| Setting::new(value.clone(), origin.clone()))
        };
        let take_secret = |key: &str| {
            take(key).map(|setting| Setting::new(Secret::new(setting.value), setting.origin))
        };
        match (&self.host, take("host")) {
            (None, theirs) => self.host = theirs,
            (Some(ours), Some(theirs)) => same_host(ours, &theirs)?,
            (Some(_), None) => {}
        }
        self.token = self.token.take().or_else(|| take_secret("token"));
        self.client_id = self.client_id.take().or_else(|| take("client_id"));
        self.client_secret = self.client_secret.take().or_else(|| take_secret("client_secret"));
        self.auth_type = self.auth_type.take().or_else(|| take("auth_type"));
        self.token_audience = self.token_audience.take().or_else(|| take("audience"));
        if self.databricks_cli.is_none() {
            self.databricks_cli = found.keys.get("databricks_cli_path").map(PathBuf::from);
        }
        Ok(())
    }
}

fn parse_host(host: &Setting) -> Result<Host> {
    Host::parse(&host.value)
        .map_err(|why| Error::new(Kind::Usage, why).why(format!("it is set by {}", host.origin)))
}

fn same_host(ours: &Setting, theirs: &Setting) -> Result<()> {
    let (our_host, their_host) = (parse_host(ours)?, parse_host(theirs)?);
    if our_host.url() == their_host.url() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "two workspaces are named")
        .code("WORKSPACE_MISMATCH")
        .why(format!("{} says `{our_host}`", ours.origin))
        .why(format!("{} says `{their_host}`", theirs.origin))
        .hint("choose one: unset the variable, or name the profile with `-p`"))
}

/// Returns the one strategy that the settings suffice for.
fn strategy(settings: Settings, profile: Option<&str>) -> Result<Strategy> {
    let Some(wanted) = &settings.auth_type else { return any_strategy(settings, profile) };
    let name = wanted.value.clone();
    let missing = |what: &str| {
        Error::new(Kind::Auth, format!("cannot log in by `{name}`"))
            .why(format!("{what} is not set"))
            .why(format!("the way is chosen by {}", wanted.origin))
    };
    match name.as_str() {
        "pat" => pat(&settings).ok_or_else(|| missing("a token")),
        "oauth-m2m" => {
            service_principal(&settings).ok_or_else(|| missing("client id or client secret"))
        }
        "databricks-cli" => Ok(databricks_cli(settings, profile)),
        "github-oidc" => github(&settings).ok_or_else(|| missing("ACTIONS_ID_TOKEN_REQUEST_URL")),
        "env-oidc" => environment(&settings).ok_or_else(|| missing("DATABRICKS_OIDC_TOKEN")),
        other => Err(Error::new(Kind::Auth, format!("cannot log in by `{other}`"))
            .why(format!("`lakeforge` knows pat, oauth-m2m, databricks-cli, github-oidc and env-oidc; the way is chosen by {}", wanted.origin))
            .hint("databricks auth login, or set DATABRICKS_TOKEN")),
    }
}

/// Tries the ways in turn. The SDKs try the Databricks CLI earlier and drop it when it has no
/// login; asking it last comes to the same without starting it in vain.
fn any_strategy(settings: Settings, profile: Option<&str>) -> Result<Strategy> {
    if let (Some(token), Some(secret)) = (&settings.token, &settings.client_secret) {
        return Err(Error::new(
            Kind::Usage,
            "more than one way to log in is set: pat and oauth-m2m",
        )
        .why(format!("a token is set by {}", token.origin))
        .why(format!("a client secret is set by {}", secret.origin))
        .hint("set DATABRICKS_AUTH_TYPE, or unset one of them"));
    }
    let found = pat(&settings)
        .or_else(|| service_principal(&settings))
        .or_else(|| settings.client_id.as_ref().and_then(|_| github(&settings)))
        .or_else(|| settings.client_id.as_ref().and_then(|_| environment(&settings)));
    Ok(found.unwrap_or_else(|| databricks_cli(settings, profile)))
}

fn pat(settings: &Settings) -> Option<Strategy> {
    let Setting { value: token, origin } = settings.token.clone()?;
    Some(Strategy::Token { token, origin })
}

fn service_principal(settings: &Settings) -> Option<Strategy> {
    let client_id = settings.client_id.clone()?.value;
    let Setting { value: secret, origin } = settings.client_secret.clone()?;
    Some(Strategy::ServicePrincipal { client_id, secret, origin })
}

fn github(settings: &Settings) -> Option<Strategy> {
    Some(Strategy::Github {
        github: settings.github.clone()?,
        client_id: settings.client_id.clone().map(|id| id.value),
        audience: settings.token_audience.clone().map(|audience| audience.value),
    })
}

fn environment(settings: &Settings) -> Option<Strategy> {
    Some(Strategy::Environment {
        token: settings.oidc_token.clone()?.value,
        client_id: settings.client_id.clone().map(|id| id.value),
    })
}

fn databricks_cli(settings: Settings, profile: Option<&str>) -> Strategy {
    Strategy::DatabricksCli {
        cli: settings.databricks_cli.unwrap_or_else(|| PathBuf::from("databricks")),
        profile: profile.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[DEFAULT]\nhost = https://default.test\ntoken = dapi0\n\
        [ci]\nhost = ci.test\nclient_id = id\nclient_secret = secret\n\
        [me]\nhost = https://me.test/\nauth_type = databricks-cli\n\
        [azure]\nhost = https://azure.test\nauth_type = azure-cli\n";
    const LOCAL: &str = "[local]\nhost = http://127.0.0.1:8765\nclient_id = a\nclient_secret = b\n";

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(user: &str, local: Option<&str>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("user"), user).unwrap();
            if let Some(local) = local {
                std::fs::write(folder.path().join("local"), local).unwrap();
            }
            Files(folder)
        }

        fn settings(&self) -> Settings {
            Settings {
                config_file: Some(self.0.path().join("user")),
                local_config_file: Some(self.0.path().join("local")),
                ..Settings::default()
            }
        }

        fn with_profile(&self, name: &str) -> Settings {
            let profile = Some(Setting::new(name.to_owned(), Origin::Flag("--profile")));
            Settings { profile, ..self.settings() }
        }
    }

    fn variable<T>(value: T) -> Option<Setting<T>> {
        Some(Setting::new(value, Origin::Variable("DATABRICKS_X")))
    }

    #[test]
    fn without_a_word_the_default_profile_is_read() {
        let choice = choose(Files::new(FILE, None).settings()).unwrap();
        assert_eq!(choice.host.to_string(), "https://default.test");
        assert_eq!(choice.strategy.name(), "pat");

        let renamed = format!("{FILE}[__settings__]\ndefault_profile = ci\n");
        let choice = choose(Files::new(&renamed, None).settings()).unwrap();
        assert_eq!(choice.host.to_string(), "https://ci.test");
        assert_eq!(choice.strategy.name(), "oauth-m2m");
    }

    #[test]
    fn a_profile_named_by_a_flag_stands_alone() {
        let files = Files::new(FILE, None);
        let settings = Settings {
            host: variable("https://other.test".to_owned()),
            token: variable(Secret::new("dapi9".to_owned())),
            ..files.with_profile("me")
        };
        let choice = choose(settings).unwrap();

        assert_eq!(choice.host.to_string(), "https://me.test");
        assert_eq!(
            choice.strategy,
            Strategy::DatabricksCli { cli: "databricks".into(), profile: Some("me".to_owned()) }
        );
    }

    #[test]
    fn the_environment_alone_needs_no_file() {
        let settings = Settings {
            host: variable("https://env.test".to_owned()),
            token: variable(Secret::new("dapi9".to_owned())),
            ..Files::new(FILE, None).settings()
        };
        let choice = choose(settings).unwrap();

        assert_eq!(choice.host.to_string(), "https://env.test");
        assert_eq!(choice.profile, None);
    }

    #[test]
    fn nothing_secret_goes_over_an_open_line() {
        for (host, expected) in [
            ("http://env.test", Some(Kind::Refused)),
            ("http://10.0.0.1:8765", Some(Kind::Refused)),
            ("http://localhost.evil.test", Some(Kind::Refused)),
            ("http://127.0.0.1:8765", None),
            ("https://env.test", None),
        ] {
            let settings = Settings {
                host: variable(host.to_owned()),
                token: variable(Secret::new("dapi9".to_owned())),
                ..Settings::default()
            };
            let refused = choose(settings).err();
            assert_eq!(refused.as_ref().map(Error::kind), expected, "{host} {refused:?}");
        }
    }

    #[test]
    fn the_authority_is_that_of_the_workspace_at_this_address() {
        let files = Files::new(FILE, Some(LOCAL));
        let folder = files.0.path();
        assert_eq!(choose(files.with_profile("local")).unwrap().certificate, None);
        std::fs::create_dir(folder.join("tls")).unwrap();
        std::fs::write(folder.join("tls/ca.pem"), "x").unwrap();

        assert_eq!(
            choose(files.with_profile("local")).unwrap().certificate,
            Some(folder.join("tls/ca.pem"))
        );
        for (host, expected) in [("http://127.0.0.1:8765", true), ("http://127.0.0.1:8766", false)]
        {
            let settings = Settings {
                host: variable(host.to_owned()),
                token: variable(Secret::new("dapi9".to_owned())),
                ..files.settings()
            };
            assert_eq!(choose(settings).unwrap().certificate.is_some(), expected, "{host}");
        }
    }

    #[test]
    fn two_workspaces_are_refused() {
        let files = Files::new(FILE, None);
        let settings = Settings {
            host: variable("https://env.test".to_owned()),
            profile: variable("ci".to_owned()),
            ..files.settings()
        };
        let error = choose(settings).unwrap_err();

        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("https://env.test"), "{error}");
        assert!(error.to_string().contains("https://ci.test"), "{error}");
    }

    #[test]
    fn the_profile_local_is_the_embedded_workspace() {
        let choice = choose(Files::new(FILE, Some(LOCAL)).with_profile("local")).unwrap();
        assert_eq!(choice.host.to_string(), "http://127.0.0.1:8765");

        let own = format!("{FILE}[local]\nhost = https://mine.test\ntoken = t\n");
        let choice = choose(Files::new(&own, Some(LOCAL)).with_profile("local")).unwrap();
        assert_eq!(choice.host.to_string(), "https://mine.test", "the user's own file wins");

        let error = choose(Files::new(FILE, None).with_profile("local")).unwrap_err();
        assert_eq!(error.hint_text(), Some("lakeforge local start"));
    }

    #[test]
    fn what_cannot_work_says_why() {
        for (settings, kind, part) in [
            (Files::new("", None).settings(), Kind::Auth, "no workspace"),
            (Files::new(FILE, None).with_profile("c1"), Kind::Usage, "has no profile `c1`"),
            (Files::new(FILE, None).with_profile("azure"), Kind::Auth, "`azure-cli`"),
            (
                Settings {
                    auth_type: variable("oauth-m2m".to_owned()),
                    profile: variable("DEFAULT".to_owned()),
                    ..Files::new(FILE, None).settings()
                },
                Kind::Auth,
                "client id or client secret",
            ),
            (
                Settings {
                    token: variable(Secret::new("t".to_owned())),
                    profile: variable("ci".to_owned()),
                    ..Files::new(FILE, None).settings()
                },
                Kind::Usage,
                "more than one way",
            ),
        ] {
            let error = choose(settings).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_job_with_an_identity_needs_no_secret() {
        let github = GithubOidc {
            url: "https://actions.test/token?v=1".to_owned(),
            token: Secret::new("t".to_owned()),
        };
        let settings = Settings {
            host: variable("https://env.test".to_owned()),
            client_id: variable("id".to_owned()),
            github: Some(github),
            ..Settings::default()
        };

        assert_eq!(choose(settings).unwrap().strategy.name(), "github-oidc");
    }
}
