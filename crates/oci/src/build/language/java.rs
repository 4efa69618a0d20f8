//! Java: maven, gradle or the compiler alone; the image has the classes and a runtime, not the tools.

use crate::build::plan::{Plan, Sources, Step, web, words};
use crate::image::Result;

/// With the repository where the next step finds it.
const MAVEN: &str = "-B -ntp -Dmaven.repo.local=/opt/m2 -Duser.home=$HOME -DskipTests";
/// The sources' own gradle, which fetches the version that they want, or else Debian's.
const GRADLE: &str = "\
cp -r $HOME/.gradle/. /opt/gradle/ 2> /dev/null || true
gradle=gradle
if [ -f gradlew ] && [ -f gradle/wrapper/gradle-wrapper.jar ]; then gradle='sh ./gradlew'; fi
";

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan {
        runtime: words(&["default-jre-headless"]),
        env: vec![("JAVA_HOME", "/usr/lib/jvm/default-java".to_owned())],
        ignored: vec!["target", "build", ".gradle"],
        ..Plan::default()
    };
    if sources.has("pom.xml") {
        maven(sources, &mut plan)?;
    } else if sources.first(&["build.gradle", "build.gradle.kts"]).is_some() {
        gradle(sources, &mut plan);
    } else {
        plain(sources, &mut plan)?;
    }
    Ok(plan)
}

fn maven(sources: &Sources, plan: &mut Plan) -> Result<()> {
    plan.tools = words(&["default-jdk-headless", "maven"]);
    let pom = sources.text_or_empty("pom.xml")?;
    // The poms of modules are needed as well, and those of the sources themselves cannot be fetched.
    if !pom.contains("<modules>") && !pom.contains("<relativePath>..") {
        plan.before.push(Step {
            name: "dependencies",
            doing: "fetching the Maven artifacts",
            dir: "/app",
            files: sources.files(&["pom.xml"], "/app")?,
            // Not all of a project's plugins can be told beforehand; the next step fetches the rest.
            script: format!("mvn {MAVEN} dependency:go-offline || mvn {MAVEN} -o --version\n"),
            outputs: vec!["opt/m2/"],
            staged: true,
            ..Step::default()
        });
    }
    plan.after.push(Step {
        name: "compile",
        doing: "building with Maven",
        dir: "/app",
        script: format!("mvn {MAVEN} package\nrm -rf target/maven-status target/surefire-reports\n"),
        outputs: vec!["app/"],
        ..Step::default()
    });
    plan.processes = web("java $JAVA_OPTS -jar target/*.jar");
    if pom.contains("<packaging>war") {
        plan.processes =
            web("java $JAVA_OPTS -jar target/dependency/webapp-runner.jar --port $PORT target/*.war");
    }
    Ok(())
}

fn gradle(sources: &Sources, plan: &mut Plan) {
    plan.tools = words(&["default-jdk-headless", "gradle"]);
    let task = ["build.gradle", "build.gradle.kts"]
        .iter()
        .any(|file| sources.text_or_empty(file).is_ok_and(|text| text.contains("stage")));
    let task = if task { "stage" } else { "assemble" };
    plan.after.push(Step {
        name: "compile",
        doing: "building with Gradle",
        dir: "/app",
        script: format!("{GRADLE}$gradle --no-daemon --console=plain -x test {task}\nrm -rf .gradle\n"),
        outputs: vec!["app/"],
        env: vec![("GRADLE_USER_HOME", "/opt/gradle".to_owned())],
        ..Step::default()
    });
    plan.processes = web("java $JAVA_OPTS -jar build/libs/*.jar");
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
