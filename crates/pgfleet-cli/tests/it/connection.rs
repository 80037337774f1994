//! `pgfleet connection`: where connections go, by which rule, and whether one gets in.

use serde_json::Value;

use crate::support::Solution;

/// The connections of the microservice template of ABP: four services, and which modules' names lead
/// to which of them.
async fn abp() -> Solution {
    let solution = Solution::new().await;
    let services = "\
        [services.{}_administration]\nmodules = [\"permission\", \"feature\", \"setting\", \"language\"]\n\
        tenants = \"own\"\nschema = \"administration\"\n\n\
        [services.{}_identity]\nmodules = [\"identity\", \"oauth\"]\nuses = [\"{}_administration:permission\"]\n\
        tenants = \"own\"\nschema = \"identity\"\n\n\
        [services.{}_audit]\nmodules = [\"audit\"]\ntenants = \"own\"\nschema = \"audit\"\n\n\
        [services.{}_saas]\n\n\
        [modules.permission]\nconnection = \"AbpPermissionManagement\"\nschema = \"permission\"\n\
        [modules.feature]\nconnection = \"AbpFeatureManagement\"\n\
        [modules.setting]\nconnection = \"AbpSettingManagement\"\n\
        [modules.language]\nconnection = \"AbpLanguageManagement\"\n\
        [modules.identity]\nconnection = \"AbpIdentity\"\n\
        [modules.oauth]\nconnection = \"AbpOpenIddict\"\n\
        [modules.audit]\nconnection = \"AbpAuditLogging\"\n\n\
        [connections]\n\
        AbpPermissionManagement = \"{}_administration\"\nAbpFeatureManagement = \"{}_administration\"\n\
        AbpSettingManagement = \"{}_administration\"\nAbpLanguageManagement = \"{}_administration\"\n\
        AbpIdentity = \"{}_identity\"\nAbpOpenIddict = \"{}_identity\"\nAbpAuditLogging = \"{}_audit\"\n";
    solution.manifest(&services.replace("{}", &solution.prefix));
    let path = solution.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text.replacen("[solution]", "[solution]\nisolation = \"declared\"", 1)).unwrap();
    solution.pgfleet("provision").exits(0);
    solution
}

/// The rules of an explanation, each with what came of it.
fn steps(explained: &Value) -> Vec<(&str, &str)> {
    let steps = explained["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["rule"].as_str().unwrap(), step["outcome"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn the_mapped_names_of_the_abp_example_lead_where_it_says() {
    let solution = abp().await;
    let listed = solution.pgfleet("connection list --json").exits(0).json();
    let lead = |service: &str, name: &str| {
        let rows = listed.as_array().unwrap().iter();
        let mut rows = rows.filter(|row| row["service"] == solution.name(service) && row["connection"] == name);
        let row = rows.next()?;
        let short = |field: &str| row[field].as_str().unwrap().replace(&format!("{}_", solution.prefix), "");
        Some((short("kind"), short("database"), short("role")))
    };
    let row = |kind: &str, database: &str, role: &str| Some((kind.to_owned(), database.to_owned(), role.to_owned()));
    for name in ["AbpPermissionManagement", "AbpFeatureManagement", "AbpSettingManagement", "AbpLanguageManagement"] {
        assert_eq!(lead("administration", name), row("mapped", "administration", "administration_app"), "{name}");
    }
    for name in ["AbpIdentity", "AbpOpenIddict"] {
        assert_eq!(lead("identity", name), row("mapped", "identity", "identity_app"), "{name}");
    }
    assert_eq!(lead("audit", "AbpAuditLogging"), row("mapped", "audit", "audit_app"));
    // Another service's database only by declaration, as a guest.
    assert_eq!(lead("identity", "AbpPermissionManagement"), row("uses", "administration", "identity_app"));
    assert_eq!(lead("identity", "AbpFeatureManagement"), None);
    assert_eq!(lead("audit", "AbpIdentity"), None);
    assert_eq!(listed.as_array().unwrap().len(), 4 + 7 + 1);

    let explain = |line: &str| solution.pgfleet(&format!("connection explain --json {line}")).exits(0).json();
    let host = explain("--service {}_identity --name AbpOpenIddict");
    assert_eq!(steps(&host), [("host-main", "won")]);
    assert_eq!(host["physical"]["database"], solution.name("identity"));
    let mapped = explain("--service {}_identity --name AbpPermissionManagement");
    assert_eq!(steps(&mapped), [("host-mapped", "won")]);
    assert_eq!(mapped["physical"]["database"], solution.name("administration"));
    solution
        .pgfleet("connection explain --service {}_audit --name AbpIdentity")
        .exits(3)
        .says("has no connection named AbpIdentity")
        .says(&format!(
            "hint: it is mapped to {0}; declare that {1} uses it: uses = [\"{0}:identity\"]",
            solution.name("identity"),
            solution.name("audit")
        ));
    solution.pgfleet("connection test").exits(0).says("9 logins, 0 failed");
}

#[tokio::test]
async fn each_rule_for_a_tenant_is_shown_in_its_order() {
    let solution = abp().await;
    for name in ["acme", "acme_admin", "acme_oauth", "both"] {
        solution.sql(&format!("CREATE DATABASE \"{{}}_{name}\"")).await;
    }
    solution
        .pgfleet(
            "tenant create acme --connection dbname={}_acme --connection {}_administration=dbname={}_acme_admin \
             --connection AbpOpenIddict=dbname={}_acme_oauth",
        )
        .exits(0);
    solution.pgfleet("tenant create globex --no-database").exits(0);
    let explain = |service: &str, name: &str, tenant: &str| {
        let line = format!("connection explain --json --service {{}}_{service} --name {name} --tenant {tenant}");
        let explained = solution.pgfleet(&line).exits(0).json();
        let database =
            explained["physical"]["database"].as_str().unwrap().replace(&format!("{}_", solution.prefix), "");
        let steps: Vec<(String, String)> =
            steps(&explained).iter().map(|(rule, outcome)| ((*rule).to_owned(), (*outcome).to_owned())).collect();
        (database, steps)
    };
    let wins = |steps: &[(&str, &str)]| -> Vec<(String, String)> {
        steps.iter().map(|(rule, outcome)| ((*rule).to_owned(), (*outcome).to_owned())).collect()
    };
    assert_eq!(
        explain("identity", "AbpOpenIddict", "acme"),
        (
            "acme_oauth".to_owned(),
            wins(&[
                ("tenant-name", "won"),
                ("tenant-service", "not-needed"),
                ("tenant-default", "not-needed"),
                ("host-main", "not-needed")
            ])
        )
    );
    assert_eq!(
        explain("identity", "AbpIdentity", "acme"),
        (
            "acme".to_owned(),
            wins(&[
                ("tenant-name", "missing"),
                ("tenant-service", "missing"),
                ("tenant-default", "won"),
                ("host-main", "not-needed")
            ])
        )
    );
    // The name is another service's, and so is the string that decides.
    assert_eq!(
        explain("identity", "AbpPermissionManagement", "acme"),
        (
            "acme_admin".to_owned(),
            wins(&[
                ("tenant-name", "missing"),
                ("tenant-service", "won"),
                ("tenant-default", "not-needed"),
                ("host-mapped", "not-needed")
            ])
        )
    );
    assert_eq!(explain("identity", "AbpPermissionManagement", "globex").0, "administration");
    // A service without data in tenants' databases is where it always is.
    solution
        .pgfleet("connection explain --service {}_saas --tenant acme")
        .exits(0)
        .says("has no data in tenants' databases (tenants = \"none\")")
        .prints("host-main");
    solution.pgfleet("tenant disable globex").exits(0);
    solution
        .pgfleet("connection explain --service {}_audit --tenant globex")
        .exits(0)
        .says("note: tenant globex is disabled: services refuse it");
    // Who else goes there.
    solution.pgfleet("tenant create shared --shared --connection {}_audit=dbname={}_acme").exits(0);
    solution
        .pgfleet("connection explain --service {}_audit --tenant shared")
        .exits(0)
        .prints("also there: tenant acme, by its default string");
    solution
        .pgfleet("connection explain --service {}_audit --tenant nobody")
        .exits(3)
        .says("there is no tenant `nobody`");
}

#[tokio::test]
async fn a_login_that_fails_or_leads_elsewhere_is_named() {
    let solution = crate::tenant::solution().await;
    solution.sql("CREATE DATABASE \"{}_acme\"").await;
    solution.pgfleet("tenant create acme --connection dbname={}_acme").exits(0);
    let good = solution.pgfleet("connection test --tenant acme --json").exits(0).json();
    assert_eq!(good.as_array().unwrap().len(), 4, "two services, as application and as migrator");
    for tested in good.as_array().unwrap() {
        assert_eq!(tested["as_recorded"], true, "{tested}");
        assert_eq!(tested["tls"]["on"], false, "{tested}");
        assert!(tested["version"].as_str().unwrap().starts_with("15."), "{tested}");
    }
    solution.pgfleet("connection test --service {}_trip").exits(0).says("2 logins, 0 failed").prints("migrator");
    // Dropped and made anew: the string is the same, the database is not.
    solution.sql("DROP DATABASE \"{}_acme\"").await;
    solution
        .pgfleet("connection test --tenant acme --service {}_trip")
        .exits(1)
        .says("does not exist")
        .says("2 logins, 2 failed");
    solution.sql("CREATE DATABASE \"{}_acme\"").await;
    solution
        .pgfleet("connection test --tenant acme --service {}_trip")
        .exits(1)
        .prints("another database")
        .says("it leads to another database than the recorded one")
        .says("hint: if that is what you want, have it looked at again: pgfleet tenant set-connection acme");
    solution.pgfleet("tenant set-connection acme dbname={}_acme").exits(0).says("is still");
    solution.pgfleet("connection test --tenant acme --service {}_trip").exits(0);
    solution.sql("ALTER ROLE \"{}_trip_app\" NOLOGIN").await;
    solution
        .pgfleet("connection test --service {}_trip")
        .exits(1)
        .says("is not permitted to log in")
        .says("2 logins, 1 failed");
}
