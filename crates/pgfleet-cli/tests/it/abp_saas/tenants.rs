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
