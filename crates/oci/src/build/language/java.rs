//! Java: maven, gradle or the compiler alone; the image has the classes and a runtime, not the tools.

use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::image::Result;

/// With the repository where the next step finds it.
const MAVEN: &str = "mvn $MAVEN_ARGS -B -ntp -Dstyle.color=never -Dmaven.repo.local=/opt/m2 -Duser.home=$HOME -DskipTests package";
/// Of the poms alone: that resolves all that building takes. It may fail for what only the sources have, but not
/// because nothing is reached, as it is not tried again for these poms.
const FETCHED: &str = "\
rm -rf target */target
if grep -q 'BUILD SUCCESS' /var/tmp/log; then exit 0; fi
if grep -Eq 'Unknown host|UnknownHost|Connection refused|timed out|unreachable|Could not (transfer|GET)' /var/tmp/log; then exit 1; fi
";
/// What is fetched lies where the next step finds it, and the machine's settings where they are in no layer. The
/// sources' own gradle fetches the version that they want; else it is Debian's.
const GRADLE: &str = "\
mkdir -p $HOME/.gradle /opt/gradle/caches /opt/gradle/wrapper
ln -s /opt/gradle/caches /opt/gradle/wrapper $HOME/.gradle/
export GRADLE_USER_HOME=$HOME/.gradle
gradle=gradle
if [ -f gradlew ] && [ -f gradle/wrapper/gradle-wrapper.jar ]; then gradle='sh ./gradlew'; fi
gradle=\"$gradle --no-daemon --console=plain\"
";
/// A task that resolves whatever can be, in every project.
const FETCH_GRADLE: &str = "\
cat > /var/tmp/fetch.gradle <<'END'
allprojects {
  task yadoFetch {
    doLast {
      (buildscript.configurations + configurations).findAll {
        !it.metaClass.respondsTo(it, 'isCanBeResolved') || it.canBeResolved
      }.each { try { it.resolve() } catch (Exception e) { println e } }
    }
  }
}
END
$gradle -I /var/tmp/fetch.gradle yadoFetch 2>&1 | tee /var/tmp/log
rm -rf build .gradle
";
/// Spring's setting for the port, which others ignore, as Heroku gives it.
const RUN: &str = "java -Dserver.port=$PORT $JAVA_OPTS -jar";

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan {
        runtime: words(&["default-jre-headless"]),
        env: vec![("JAVA_HOME", "/usr/lib/jvm/default-java".to_owned())],
        ignored: vec!["target", "build", ".gradle"],
        wanted: wanted(sources)?,
        ..Plan::default()
    };
    if sources.has("pom.xml") {
        maven(sources, &mut plan)?;
    } else if sources.first(&["build.gradle", "build.gradle.kts"]).is_some() {
        gradle(sources, &mut plan)?;
    } else {
        plain(sources, &mut plan)?;
    }
    Ok(plan)
}

/// Heroku's `java.runtime.version=17` in `system.properties`.
fn wanted(sources: &Sources) -> Result<Option<Wanted>> {
    let (file, text) = ("system.properties", sources.text_or_empty("system.properties")?);
    let version =
        text.lines().find_map(|line| line.trim().strip_prefix("java.runtime.version")?.split('=').nth(1));
    // `1.8` was Java 8's name.
    let version = version.map(|v| v.trim().trim_start_matches("1.").to_owned());
    Ok(version.map(|version| Wanted { file, what: "Java", version, package: "openjdk-17-jre-headless" }))
}

fn maven(sources: &Sources, plan: &mut Plan) -> Result<()> {
    plan.tools = words(&["default-jdk-headless", "maven"]);
    let pom = sources.text_or_empty("pom.xml")?;
    let poms = sources.search(|name| name == "pom.xml");
    // A parent outside of the sources cannot be had here.
    if !pom.contains("<relativePath>..") {
        plan.before.push(Step {
            name: "dependencies",
            doing: "fetching the Maven artifacts",
            dir: "/app",
            files: sources.files(&poms.iter().map(String::as_str).collect::<Vec<_>>(), "/app")?,
            script: format!("{MAVEN} 2>&1 | tee /var/tmp/log\n{FETCHED}"),
            outputs: vec!["opt/m2/"],
            staged: true,
            ..Step::default()
        });
    }
    let module = module(sources, &pom, &poms)?;
    let target = format!("{module}target");
    plan.after.push(Step {
        name: "compile",
        doing: "building with Maven",
        dir: "/app",
        script: format!(
            "{MAVEN}\nrm -rf {target}/maven-status {target}/surefire-reports\nrm -f {target}/original-*.jar{}\n",
            beside(&target)
        ),
        outputs: vec!["app/"],
        ..Step::default()
    });
    plan.processes = web(format!("{RUN} {target}/*.jar"));
    if pom.contains("<packaging>war") {
        plan.processes =
            web("java $JAVA_OPTS -jar target/dependency/webapp-runner.jar --port $PORT target/*.war");
    }
    Ok(())
}

/// The directory, with a slash, of the module that is a program: the one that Spring packs, or that names its main
/// class, or else the first.
fn module(sources: &Sources, pom: &str, poms: &[String]) -> Result<String> {
    if !pom.contains("<modules>") {
        return Ok(String::new());
    }
    let modules: Vec<&str> = poms.iter().filter_map(|path| path.strip_suffix("pom.xml")).collect();
    let modules: Vec<&str> = modules.into_iter().filter(|dir| !dir.is_empty()).collect();
    for sign in ["spring-boot-maven-plugin", "<mainClass>"] {
        for dir in &modules {
            if sources.text_or_empty(&format!("{dir}pom.xml"))?.contains(sign) {
                return Ok((*dir).to_owned());
            }
        }
    }
    Ok(modules.first().map_or_else(String::new, |dir| (*dir).to_owned()))
}

/// Archives that lie beside the one that is run and would be taken for it.
fn beside(dir: &str) -> String {
    ["sources", "javadoc", "tests", "plain"].iter().map(|kind| format!(" {dir}/*-{kind}.jar")).collect()
}

fn gradle(sources: &Sources, plan: &mut Plan) -> Result<()> {
    plan.tools = words(&["default-jdk-headless", "gradle"]);
    let builds = ["build.gradle", "build.gradle.kts"];
    let mut task = "assemble";
    for file in builds {
        let text = sources.text_or_empty(file)?;
        // Heroku's name for what makes an application ready.
        if text
            .lines()
            .any(|line| line.contains("stage") && (line.contains("task") || line.contains("register")))
        {
            task = "stage";
        }
    }
    let mut names = sources.search(|name| name.ends_with(".gradle") || name.ends_with(".gradle.kts"));
    names.extend(words(&[
        "gradle.properties",
        "gradlew",
        "gradle/wrapper/gradle-wrapper.jar",
        "gradle/wrapper/gradle-wrapper.properties",
        "gradle/libs.versions.toml",
    ]));
    plan.before.push(Step {
        name: "dependencies",
        doing: "fetching what Gradle needs",
        dir: "/app",
        files: sources.files(&names.iter().map(String::as_str).collect::<Vec<_>>(), "/app")?,
        script: format!("{GRADLE}{FETCH_GRADLE}{FETCHED}"),
        outputs: vec!["opt/gradle/"],
        staged: true,
        ..Step::default()
    });
    plan.after.push(Step {
        name: "compile",
        doing: "building with Gradle",
        dir: "/app",
        script: format!("{GRADLE}$gradle -x test {task}\nrm -rf .gradle\nrm -f{}\n", beside("build/libs")),
        outputs: vec!["app/"],
        ..Step::default()
    });
    plan.processes = web(format!("{RUN} build/libs/*.jar"));
    Ok(())
}

/// Sources without a build file: all of them, into `/app/target/classes`, with the archives in `lib`.
fn plain(sources: &Sources, plan: &mut Plan) -> Result<()> {
    plan.tools = words(&["default-jdk-headless"]);
    plan.env.push(("CLASSPATH", "/app/target/classes:/app/lib/*".to_owned()));
    plan.after.push(Step {
        name: "compile",
        doing: "compiling the Java classes",
        dir: "/app",
        script: "mkdir -p target/classes\nfind . -name '*.java' > /var/tmp/sources\n\
                 javac -encoding UTF-8 -cp 'lib/*' -d target/classes @/var/tmp/sources\n"
            .to_owned(),
        outputs: vec!["app/target/"],
        ..Step::default()
    });
    for file in sources.search(|name| name.ends_with(".java")) {
        let text = sources.text_or_empty(&file)?;
        if text.contains("public static void main") {
            let class = file.rsplit('/').next().unwrap_or(&file).trim_end_matches(".java");
            let package = text.lines().find_map(|line| line.trim().strip_prefix("package "));
            let package = package.map(|p| format!("{}.", p.trim().trim_end_matches(';'))).unwrap_or_default();
            plan.processes = web(format!("java $JAVA_OPTS {package}{class}"));
            break;
        }
    }
    Ok(())
}
