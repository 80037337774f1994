//! What is a tenant's: in the host databases, and in databases of its own.

use super::Abp;

impl Abp {
    /// Runs a seed of a module for a tenant in the database of a service, as its tables' owner would.
    async fn seed_for(&self, tenant: &str, database: &str, schema: &str, seed: &str) {
        let text = std::fs::read_to_string(self.folder.path().join(seed)).unwrap();
        let properties = [("tenant", tenant), ("admin_email", "owner@acme.example"), ("admin_password", "hash")];
        let text = properties
            .iter()
            .fold(text, |text, (name, value)| text.replace(&format!(":'{name}'"), &format!("'{value}'")));
        // Whatever else the file names is not looked at for a tenant.
        let text = text.replace(":'", "'");
        self.column(database, &format!("set search_path = {schema};\n{text}")).await;
    }
}

#[tokio::test]
async fn a_tenant_among_the_hosts_rows_gets_its_own_and_changes_no_other() {
    let abp = Abp::up().await;
    let hosts = abp.seeded().await;
    for _ in 0..2 {
        for (database, schema, seed) in [
            ("identity", "identity", "modules/user/seeds/01_admin.sql"),
            ("identity", "identity", "modules/openiddict/seeds/01_scopes.sql"),
            ("identity", "identity", "modules/openiddict/seeds/02_applications.sql"),
            ("administration", "permission", "modules/permission/seeds/01_permissions.sql"),
            ("administration", "permission", "modules/permission/seeds/02_clients.sql"),
            ("administration", "language", "modules/language/seeds/01_languages.sql"),
        ] {
            abp.seed_for("acme", database, schema, seed).await;
        }
    }
    let admin = "select concat_ws(' ', tenant_id, user_name, email, roles) from identity.active_users \
                 where tenant_id is not null";
    assert_eq!(abp.column("identity", admin).await, ["acme admin owner@acme.example {admin}"]);
    let sides = "select distinct p.multi_tenancy_side from permission.permission_grants g \
                 join permission.permissions p on p.name = g.name where g.tenant_id = 'acme' order by 1";
    assert_eq!(abp.column("administration", sides).await, ["both", "tenant"]);
    let grants = "select count(*) = (select count(*) from permission.permissions where multi_tenancy_side <> 'host' \
                  and providers is null) from permission.permission_grants where tenant_id = 'acme'";
    assert_eq!(abp.one("administration", grants).await, "t");
    let languages = "select count(*) from language.languages where tenant_id = 'acme'";
    assert_eq!(abp.one("administration", languages).await, "15");

    for (database, table) in [
        ("identity", "identity.user_roles"),
        ("identity", "identity.users"),
        ("identity", "identity.roles"),
        ("administration", "permission.permission_grants"),
        ("administration", "language.languages"),
    ] {
        abp.column(database, &format!("delete from {table} where tenant_id = 'acme'")).await;
    }
    assert_eq!(abp.seeded().await, hosts);
}

/// Databases of their own: made, one of them for one service more, migrated, deleted, had back.
#[tokio::test]
async fn tenants_with_databases_of_their_own_live_through_it_all() {
    let abp = Abp::up().await;
    abp.pgfleet("tenant create acme --property admin_email=owner@acme.example")
        .exits(0)
        .says("made tenant acme with database abp_saas_acme on main");
    abp.pgfleet("tenant create bolt").exits(0).says("made tenant bolt with database abp_saas_bolt on main");
    let admin = "select concat_ws(' ', tenant_id, user_name, email, roles) from identity.active_users";
    assert_eq!(abp.column("abp_saas_acme", admin).await, ["acme admin owner@acme.example {admin}"]);
    assert_eq!(abp.column("abp_saas_bolt", admin).await, ["bolt admin admin@abp-saas.example {admin}"]);
    let grants = "select distinct tenant_id from permission.permission_grants";
    assert_eq!(abp.column("abp_saas_acme", grants).await, ["acme"], "nothing of the host, and nothing of another");
    // What is in it of one service moves out; the others' data stays where it is.
    abp.pgfleet("tenant set-connection bolt --service audit_logging dbname=bolt_audit").exits(0);
    let schemas = "select nspname from pg_namespace where nspname in ('audit_logging', 'identity', 'product', 'saas') \
                   order by 1";
    assert_eq!(abp.column("bolt_audit", schemas).await, ["audit_logging"]);
    assert_eq!(abp.column("abp_saas_bolt", schemas).await, ["audit_logging", "identity", "product"]);
    let open = "select datname from pg_database where datallowconn and (datname like 'abp_saas_%' or datname like 'bolt_%') \
                order by 1";
    let all = ["abp_saas_acme", "abp_saas_bolt", "bolt_audit"];
    assert_eq!(abp.column("postgres", open).await, all);

    let file = |folder: &str, sql: &str| {
        abp.folder.file(&format!("services/{folder}"), sql);
    };
    file("product/migrations/202509010001_note.up.sql", "alter table products add column note text;");
    file("product/migrations/202509010001_note.down.sql", "alter table products drop column note;");
    file("audit_logging/migrations/202509010001_note.sql", "alter table exports add column note text;");
    abp.pgfleet("migrate").exits(0);
    let noted = "select table_schema from information_schema.columns where column_name = 'note' order by 1";
    assert_eq!(abp.column("abp_saas_acme", noted).await, ["audit_logging", "product"]);
    assert_eq!(abp.column("abp_saas_bolt", noted).await, ["product"]);
    assert_eq!(abp.column("bolt_audit", noted).await, ["audit_logging"]);
    abp.pgfleet("migrate --check").exits(0);
    let shown = abp.pgfleet("status --tenant bolt --json").exits(0).json();
    assert!(shown.to_string().contains("202509010001") && !shown.to_string().contains("behind"), "{shown}");

    let insert = "insert into identity.users (tenant_id, user_name, normalized_user_name, email, normalized_email) \
                  values ('acme', 'jo', 'JO', 'jo@acme.example', 'JO@ACME.EXAMPLE')";
    abp.column("abp_saas_acme", insert).await;
    abp.pgfleet("tenant delete acme --yes").exits(0).says("pgfleet tenant restore acme");
    assert_eq!(abp.column("postgres", open).await, all[1..]);
    file("product/migrations/202509020001_more.up.sql", "alter table products add column more text;");
    file("product/migrations/202509020001_more.down.sql", "alter table products drop column more;");
    abp.pgfleet("migrate").exits(0);
    abp.pgfleet("tenant restore acme").exits(0).says("tenant acme is back, and active");
    let users = "select user_name from identity.users order by 1";
    assert_eq!(abp.column("abp_saas_acme", users).await, ["admin", "jo"]);
    let more = "select table_schema from information_schema.columns where column_name = 'more'";
    assert_eq!(abp.column("abp_saas_acme", more).await, ["product"], "it was brought to what came meanwhile");
    abp.pgfleet("migrate --check").exits(0);
    // The host's side knows nothing of all this.
    assert_eq!(abp.one("identity", "select count(*) from identity.users where tenant_id is not null").await, "0");
}
