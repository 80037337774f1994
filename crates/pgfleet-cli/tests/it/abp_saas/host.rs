//! The host databases: what is in them, who reaches them, and the ways back.

use serde_json::Value;

use super::Abp;

/// The services, each with the newest version of its own.
const SERVICES: [(&str, &str); 5] = [
    ("administration", "202505270001"),
    ("identity", "202506100001"),
    ("saas", "202505060001"),
    ("product", "202506170001"),
    ("audit_logging", "202506240001"),
];

/// The schemas with tables of services and modules.
const OURS: &str = "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgfleet')";

/// One server for all of it: each takes longer to start than most of these take.
#[tokio::test]
async fn the_host_side() {
    let abp = Abp::up().await;
    every_database_has_its_tables_and_a_second_run_does_nothing(&abp).await;
    the_host_has_its_administrator_permissions_languages_and_clients(&abp).await;
    only_the_declared_pairs_are_open(&abp);
    the_tables_follow_the_conventions(&abp).await;
    a_way_back_and_forth_keeps_the_products(&abp).await;
}

async fn every_database_has_its_tables_and_a_second_run_does_nothing(abp: &Abp) {
    for (database, tables) in [
        (
            "administration",
            "administration.announcement_reads administration.announcements feature.feature_groups \
             feature.feature_values feature.features language.language_texts language.languages \
             permission.permission_grants permission.permission_groups permission.permissions \
             setting.setting_definitions setting.settings",
        ),
        (
            "identity",
            "identity.claim_types identity.invitations identity.link_users identity.openiddict_applications \
             identity.openiddict_authorizations identity.openiddict_scopes identity.openiddict_tokens \
             identity.organization_unit_roles identity.organization_units identity.role_claims identity.roles \
             identity.security_logs identity.sessions identity.user_claims identity.user_delegations \
             identity.user_logins identity.user_organization_units identity.user_roles identity.user_tokens \
             identity.users",
        ),
        ("saas", "public.invoices public.subscriptions tenancy.editions tenancy.tenants"),
        ("product", "product.categories product.price_changes product.products"),
        (
            "audit_logging",
            "audit_logging.audit_log_actions audit_logging.audit_logs audit_logging.entity_changes \
             audit_logging.entity_property_changes audit_logging.exports audit_logging.retention_policies",
        ),
    ] {
        let found = format!(
            "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind = 'r' and {OURS} order by 1"
        );
        assert_eq!(abp.column(database, &found).await, tables.split_whitespace().collect::<Vec<_>>(), "{database}");
    }
    // The service's own migration changed the module's table, and the view is over both.
    let profile = "select time_zone from identity.users where preferred_culture is null";
    assert_eq!(abp.column("identity", profile).await, ["UTC"]);
    assert_eq!(abp.column("identity", "select user_name from identity.active_users").await, ["admin"]);

    let before = abp.seeded().await;
    abp.pgfleet("migrate").exits(0).says("5 databases: 0 changed, 5 up to date, 0 pending, 0 failed");
    abp.pgfleet("status --check").exits(0).says("5 databases, 5 current");
    // Also when the seeds do run again.
    abp.pgfleet("seed --always").exits(0);
    assert_eq!(abp.seeded().await, before);
    let status = abp.pgfleet("status").exits(0).out;
    let rows = status.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let versions: Vec<(&str, &str)> = rows.map(|row| (row[0], row[2])).collect();
    assert_eq!(versions, SERVICES);
}

async fn the_host_has_its_administrator_permissions_languages_and_clients(abp: &Abp) {
    let admin = "select concat_ws(' ', tenant_id, user_name, email, roles) from identity.active_users";
    assert_eq!(abp.column("identity", admin).await, ["admin admin@abp-saas.example {admin}"]);
    let hash = "select password_hash like '$argon2id$%' from identity.users";
    assert_eq!(abp.one("identity", hash).await, "t");

    let granted = |condition: &str| {
        format!(
            "select count(*) from permission.permissions p where {condition} and exists \
             (select from permission.permission_grants g where g.name = p.name and g.tenant_id is null \
              and g.provider_name = 'R' and g.provider_key = 'admin')"
        )
    };
    let defined = "select count(*) from permission.permissions where multi_tenancy_side <> 'tenant' \
                   and (providers is null or 'R' = any (providers))";
    let of_the_host = abp.one("administration", defined).await;
    assert!(of_the_host.parse::<u32>().unwrap() > 50, "{of_the_host}");
    assert_eq!(abp.one("administration", &granted("true")).await, of_the_host);
    assert_eq!(abp.one("administration", &granted("multi_tenancy_side = 'tenant'")).await, "0");
    assert_eq!(abp.one("administration", &granted("p.name = 'AbpIdentity.UserLookup'")).await, "0");
    let client = "select name from permission.permission_grants \
                  where provider_name = 'C' and provider_key = 'AbpSaas_AdministrationService'";
    assert_eq!(abp.column("administration", client).await, ["AbpIdentity.Users"]);
    assert_eq!(abp.one("administration", "select count(*) from language.languages").await, "15");

    let scopes = "select name from identity.openiddict_scopes order by 1";
    let services = ["AccountService", "AdministrationService", "IdentityService", "ProductService", "SaasService"];
    assert_eq!(abp.column("identity", scopes).await, services);
    let clients = "select client_id || ' ' || client_type || ' ' || (client_secret is not null) \
                   from identity.openiddict_applications order by 1";
    assert_eq!(
        abp.column("identity", clients).await,
        [
            "AbpSaas_AdministrationService confidential true",
            "AbpSaas_Angular public false",
            "AbpSaas_Blazor public false",
            "AbpSaas_BlazorServer confidential true",
            "AbpSaas_PublicWeb confidential true",
            "AbpSaas_Web confidential true",
            "WebGateway_Swagger public false",
        ]
    );
    let of = |client: &str, column: &str| {
        format!(
            "select string_agg(value, ' ') from identity.openiddict_applications, jsonb_array_elements_text({column}) \
             where client_id = '{client}' and (value ~ '^http' or value ~ '^(gt|rst):' or value ~ '^scp:.*Service')"
        )
    };
    for (client, column, expected) in [
        // With and without a slash at the end of the address, as the properties have it.
        ("AbpSaas_Web", "redirect_uris", "https://localhost:44321/signin-oidc"),
        ("AbpSaas_Angular", "redirect_uris", "http://localhost:4200"),
        ("AbpSaas_Angular", "allowed_cors_origins", "http://localhost:4200"),
        ("AbpSaas_Blazor", "post_logout_redirect_uris", "https://localhost:44307/authentication/logout-callback"),
        (
            "AbpSaas_PublicWeb",
            "permissions",
            "gt:authorization_code gt:implicit rst:code rst:code id_token rst:id_token \
             scp:AccountService scp:AdministrationService scp:ProductService",
        ),
        ("AbpSaas_AdministrationService", "permissions", "gt:client_credentials scp:IdentityService"),
    ] {
        assert_eq!(abp.one("identity", &of(client, column)).await, expected, "{client} {column}");
    }
    let pages = abp.one("identity", &of("WebGateway_Swagger", "redirect_uris")).await;
    assert_eq!(pages.split(' ').filter(|uri| uri.ends_with("/swagger/oauth2-redirect.html")).count(), 7, "{pages}");

    // What the manifest says of a client reaches the one that is there; the administrator stays as he is.
    let path = abp.folder.path().join("pgfleet.toml");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let manifest = manifest.replace("http://localhost:4200", "https://console.example/").replace("admin@", "chief@");
    std::fs::write(path, manifest).unwrap();
    abp.pgfleet("migrate").exits(0).says("identity: applied 0, seeded 2");
    assert_eq!(abp.one("identity", &of("AbpSaas_Angular", "redirect_uris")).await, "https://console.example");
    assert_eq!(abp.column("identity", admin).await, ["admin admin@abp-saas.example {admin}"]);
}

fn only_the_declared_pairs_are_open(abp: &Abp) {
    let proof = abp.pgfleet("isolation verify --json").exits(0).json();
    let pairs = proof["pairs"].as_array().unwrap();
    let of = |verdict: &str| {
        let pairs = pairs.iter().filter(|pair| pair["verdict"] == verdict);
        let mut named: Vec<String> = pairs
            .map(|pair| format!("{} {}", pair["role"].as_str().unwrap(), pair["database"].as_str().unwrap()))
            .collect();
        named.sort();
        named
    };
    assert_eq!(
        of("declared"),
        [
            // Where a service with tenants learns who they are.
            "administration_app pgfleet",
            "audit_logging_app pgfleet",
            "identity_app administration",
            "identity_app pgfleet",
            "identity_app saas",
            "product_app administration",
            "product_app pgfleet",
            "product_app saas",
        ]
    );
    assert_eq!(of("own").len(), 3 * SERVICES.len());
    assert_eq!(of("declared").len() + of("own").len() + of("denied").len(), pairs.len());

    let explain = |line: &str| abp.pgfleet(&format!("connection explain --json {line}")).exits(0).json();
    let leads = |explained: &Value| {
        let won = explained["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "won").unwrap();
        format!("{} {}", won["rule"].as_str().unwrap(), explained["physical"]["database"].as_str().unwrap())
    };
    for (service, name, expected) in [
        ("identity", "AbpPermissionManagement", "host-mapped administration"),
        ("identity", "AbpLanguageManagement", "host-mapped administration"),
        ("identity", "Saas", "host-mapped saas"),
        ("identity", "AbpOpenIddict", "host-main identity"),
        ("product", "AbpFeatureManagement", "host-mapped administration"),
        ("administration", "AbpSettingManagement", "host-main administration"),
        ("audit_logging", "AbpAuditLogging", "host-main audit_logging"),
    ] {
        let explained = explain(&format!("--service {service} --name {name}"));
        assert_eq!(leads(&explained), expected, "{service} {name}");
    }
    abp.pgfleet("connection explain --service audit_logging --name AbpIdentity").exits(3).says("identity");
    abp.pgfleet("connection test").exits(0).says(", 0 failed");
}

async fn a_way_back_and_forth_keeps_the_products(abp: &Abp) {
    abp.column("product", "insert into product.categories (name) values ('lamps')").await;
    let products = "insert into product.products (name, price, category_id, stock_count) \
                    select 'lamp ' || n, n, c.id, 3 from generate_series(1, 3) n, product.categories c";
    abp.column("product", products).await;
    abp.pgfleet("revert --service product --to 202502180001").exits(0).says("reverted 4, now at 202502180001");
    let gone = "select count(*) from pg_attribute where attrelid = 'product.products'::regclass \
                and attname in ('stock_count', 'code')";
    assert_eq!(abp.one("product", gone).await, "0");
    assert_eq!(abp.one("product", "select to_regclass('product.price_changes')").await, "NULL");
    abp.pgfleet("status --check").exits(5);
    abp.pgfleet("migrate").exits(0).says("product: applied 4, now at 202506170001").says("5 databases: 1 changed");
    let filled = "select count(*) from product.products p join product.price_changes c on c.product_id = p.id \
                  where p.category_id is not null and length(p.code) = 12 and c.price = p.price and p.stock_count = 0";
    assert_eq!(abp.one("product", filled).await, "3");
    let index = "select indisvalid from pg_index where indexrelid = 'product.ix_products_tenant_id_name'::regclass";
    assert_eq!(abp.one("product", index).await, "t");

    abp.pgfleet("revert --service product --to 0").exits(0).says("reverted 6");
    let left = "select count(*) from pg_class where relnamespace = 'product'::regnamespace";
    assert_eq!(abp.one("product", left).await, "0");
    abp.pgfleet("migrate").exits(0).says("product: applied 6, now at 202506170001");
    abp.pgfleet("status --check").exits(0);
    // The other services only go forward.
    abp.pgfleet("revert --service saas --steps 1").exits(1).says("has no down script");
}

async fn the_tables_follow_the_conventions(abp: &Abp) {
    let unindexed = format!(
        "select c.conname from pg_constraint c join pg_namespace n on n.oid = c.connamespace \
         where c.contype = 'f' and {OURS} and not exists (select from pg_index i where i.indrelid = c.conrelid \
         and i.indpred is null and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)"
    );
    let misnamed = format!(
        "select c.conname from pg_constraint c join pg_namespace n on n.oid = c.connamespace \
         join pg_class t on t.oid = c.conrelid where {OURS} and c.conname !~ ('^' || \
         (case c.contype when 'p' then 'pk' when 'f' then 'fk' when 'u' then 'uq' when 'c' then 'ck' end) \
         || '_' || t.relname || '(_|$)') \
         union all select i.relname from pg_class i join pg_namespace n on n.oid = i.relnamespace \
         join pg_index x on x.indexrelid = i.oid join pg_class t on t.oid = x.indrelid \
         where {OURS} and i.relname !~ ('^(pk|uq|ix)_' || t.relname || '(_|$)') \
         union all select t.relname || '.' || a.attname from pg_attribute a join pg_class t on t.oid = a.attrelid \
         join pg_namespace n on n.oid = t.relnamespace where {OURS} and a.attnum > 0 and not a.attisdropped \
         and t.relkind = 'r' and a.attname !~ '^[a-z][a-z0-9_]*$'"
    );
    // The host's rows have no tenant, and nulls must not make a key twice.
    let open_keys = format!(
        "select i.relname from pg_index x join pg_class i on i.oid = x.indexrelid \
         join pg_namespace n on n.oid = i.relnamespace join pg_attribute a on a.attrelid = x.indrelid \
         where {OURS} and a.attname = 'tenant_id' and a.atttypid = 'varchar'::regtype \
         and x.indisunique and not x.indisprimary and not (x.indnullsnotdistinct and a.attnum = any (x.indkey)) \
         order by 1"
    );
    for (service, _) in SERVICES {
        assert_eq!(abp.column(service, &unindexed).await, [""; 0], "{service}");
        assert_eq!(abp.column(service, &misnamed).await, [""; 0], "{service}");
        // Only the hash of a random token is unique by itself.
        let alone: &[&str] = if service == "identity" { &["uq_invitations_token_hash"] } else { &[] };
        assert_eq!(abp.column(service, &open_keys).await, alone, "{service}");
    }
}
