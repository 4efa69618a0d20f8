//! Ruby and Rails: bundler installs into `/opt/bundle`, or takes the gems of Debian packages where these are all that
//! is needed (an Aptfile with `ruby-sinatra` and `puma`).

use super::node;
use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::image::Result;
use yado_types::procfile::ProcessType;

/// What is installed as Debian packages is tried first: that takes no network and no compiler.
const SYSTEM: &str = "\
mkdir -p $BUNDLE_APP_CONFIG
if bundle install --local > /var/tmp/local.log 2>&1; then cat /var/tmp/local.log; exit 0; fi
cat /var/tmp/local.log
";
const FETCH: &str = "\
bundle config set --local path /opt/bundle > /dev/null
bundle install --jobs 4 --retry 2
rm -rf /opt/bundle/ruby/*/cache
";

pub(super) fn plan(sources: &Sources, rails: bool) -> Result<Plan> {
    let mut plan = Plan {
        runtime: words(&["ruby", "ruby-bundler"]),
        path: vec!["/app/bin"],
        env: vec![("RACK_ENV", "production".to_owned())],
        ignored: vec![".bundle", "vendor/bundle"],
        processes: processes(sources, rails),
        wanted: wanted(sources)?,
        ..Plan::default()
    };
    if rails {
        for (name, value) in [
            ("RAILS_ENV", "production"),
            ("RAILS_LOG_TO_STDOUT", "enabled"),
            ("RAILS_SERVE_STATIC_FILES", "enabled"),
        ] {
            plan.env.push((name, value.to_owned()));
        }
    }
    if !sources.has("Gemfile") {
        return Ok(plan);
    }
    let gemfile = sources.text_or_empty("Gemfile")?;
    let lock = sources.text_or_empty("Gemfile.lock")?;
    plan.env.push(("BUNDLE_APP_CONFIG", "/opt/bundle/config".to_owned()));
    plan.env.push(("BUNDLE_WITHOUT", "development:test".to_owned()));
    if !lock.is_empty() {
        plan.env.push(("BUNDLE_FROZEN", "true".to_owned()));
    }
    // Most gems with a part in C come as sources.
    plan.compilers = words(&["build-essential", "ruby-dev", "git", "pkg-config"]);
    let dependencies = Step {
        name: "dependencies",
        doing: "installing the gems",
        dir: "/app",
        script: format!("{SYSTEM}{FETCH}"),
        outputs: match lock.is_empty() {
            true => vec!["opt/bundle/", "app/Gemfile.lock"],
            false => vec!["opt/bundle/"],
        },
        ..Step::default()
    };
    if needs_sources(&gemfile) {
        plan.after.push(dependencies);
    } else {
        let files = sources.files(&["Gemfile", "Gemfile.lock", ".ruby-version", ".tool-versions"], "/app")?;
        plan.before.push(Step { files, ..dependencies });
    }
    if rails {
        add_assets(sources, &lock, &mut plan)?;
    }
    Ok(plan)
}

/// A Gemfile that looks at other files.
fn needs_sources(gemfile: &str) -> bool {
    let code = gemfile.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let signs =
        ["path:", ":path", "path ", "gemspec", "eval_gemfile", "File.", "require_relative", "instance_eval"];
    code.into_iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
}

fn add_assets(sources: &Sources, lock: &str, plan: &mut Plan) -> Result<()> {
    let has = |gem: &str| lock.lines().any(|line| line.trim_start().starts_with(&format!("{gem} (")));
    let bundled = ["jsbundling-rails", "cssbundling-rails", "webpacker", "shakapacker", "vite_rails"]
        .into_iter()
        .any(has);
    if !["sprockets", "sprockets-rails", "propshaft"].into_iter().any(has) && !bundled {
        return Ok(());
    }
    if bundled && sources.has("package.json") {
        plan.tools.extend(words(&["nodejs", "npm"]));
        node::add(sources, plan)?;
        // `assets:precompile` calls the package's own scripts.
        plan.after.retain(|step| step.name != "compile");
        plan.path.push("/node_modules/.bin");
    } else if ["uglifier", "coffee-rails", "execjs", "terser"].into_iter().any(has) {
        plan.tools.extend(words(&["nodejs"]));
    }
    plan.after.push(Step {
        name: "compile",
        doing: "compiling the assets (`rails assets:precompile`)",
        dir: "/app",
        links: match plan.before.iter().any(|step| step.staged) {
            true => vec![("/node_modules", "opt/node-all/node_modules")],
            false => Vec::new(),
        },
        script: "bundle exec rake assets:precompile\n".to_owned(),
        outputs: vec!["app/"],
        env: [
            ("SECRET_KEY_BASE", "0"),
            ("SECRET_KEY_BASE_DUMMY", "1"),
            ("DATABASE_URL", "nulldb://user:pass@127.0.0.1/none"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into(),
        ..Step::default()
    });
    Ok(())
}

fn processes(sources: &Sources, rails: bool) -> Vec<ProcessType> {
    let through = if sources.has("Gemfile") { "bundle exec " } else { "" };
    if rails {
        return web(format!("{through}rails server -b 0.0.0.0 -p $PORT"));
    }
    if sources.has("config.ru") {
        return web(format!("{through}rackup config.ru -o 0.0.0.0 -p $PORT"));
    }
    let main = sources.first(&["app.rb", "main.rb", "server.rb", "web.rb"]);
    main.map(|file| web(format!("{through}ruby {file}"))).unwrap_or_default()
}

fn wanted(sources: &Sources) -> Result<Option<Wanted>> {
    // One in the Gemfile is judged by bundler itself.
    let Some(text) = sources.text(".ruby-version")? else { return Ok(None) };
    let version = text.trim().trim_start_matches("ruby-").to_owned();
    Ok(Some(Wanted { file: ".ruby-version", what: "Ruby", version, package: "ruby" }))
}
