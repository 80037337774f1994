//! What a database is made of beside its rows: one line per thing, the same on every server.
//!
//! Whatever the server renders from an expression may be rendered otherwise by another version, so it
//! is compared between servers of one version only.

use std::collections::BTreeSet;

use pgfleet_postgres::Connection;

/// Schemas that are not the server's own.
const SCHEMAS: &str = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'";

/// What belongs to an extension is made with the extension.
const NOT_OF_EXTENSION: &str = "NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = c.tableoid \
    AND e.objid = c.oid AND e.deptype = 'e')";

/// A relation and its schema.
const RELATION: &str = "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// Returns the lines; `exact` adds what the server renders from expressions.
pub(super) async fn read(connection: &Connection, exact: bool) -> Result<BTreeSet<String>, pgfleet_postgres::Error> {
    let mut lines = BTreeSet::new();
    for (kind, columns, from) in queries(exact) {
        let sql = format!("SELECT pg_catalog.concat_ws(' ', '{kind}', {columns}) FROM {from}");
        for row in connection.simple(&sql).await? {
            lines.insert(row.get(0).unwrap_or_default().to_owned());
        }
    }
    Ok(lines)
}

/// The rights on a thing, without its owner's; MAINTAIN came with 17, and who had all rights has it there.
fn rights(acl: &str, owner: &str) -> String {
    format!(
        "'for', coalesce((SELECT pg_catalog.string_agg(g.line, ' ' ORDER BY g.line COLLATE \"C\") FROM ( \
           SELECT pg_catalog.concat(CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee) END, \
             '=', pg_catalog.string_agg(pg_catalog.concat(a.privilege_type, CASE WHEN a.is_grantable THEN '*' END), ',' \
                    ORDER BY a.privilege_type COLLATE \"C\")) AS line \
           FROM pg_catalog.aclexplode({acl}) a WHERE a.grantee <> {owner} AND a.privilege_type <> 'MAINTAIN' \
           GROUP BY a.grantee) g), 'nobody')"
    )
}

/// Kind of thing, what is told of it, where it is read.
fn queries(exact: bool) -> Vec<(&'static str, String, String)> {
    let rendered = |sql: &str| if exact { sql.to_owned() } else { "NULL".to_owned() };
    let own = |from: &str, condition: &str| format!("{from} WHERE {condition} AND {SCHEMAS} AND {NOT_OF_EXTENSION}");
    let owner = |column: &str| format!("'of', pg_catalog.pg_get_userbyid({column})");
    let relation_acl = "coalesce(c.relacl, pg_catalog.acldefault(\
                        CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END, c.relowner))";
    vec![
        (
            "schema",
            format!(
                "c.nspname, {}, {}",
                owner("c.nspowner"),
                rights("coalesce(c.nspacl, pg_catalog.acldefault('n', c.nspowner))", "c.nspowner")
            ),
            own("pg_catalog.pg_namespace c JOIN pg_catalog.pg_namespace n ON n.oid = c.oid", "true"),
        ),
        (
            "relation",
            format!(
                "c.oid::regclass, 'kind', c.relkind, c.relpersistence, {}, 'with', c.reloptions, 'row security', \
                 c.relrowsecurity, c.relforcerowsecurity, {}",
                owner("c.relowner"),
                rights(relation_acl, "c.relowner")
            ),
            own(RELATION, "c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'"),
        ),
        (
            "column",
            format!(
                "pg_catalog.concat(c.oid::regclass, '.', a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), \
                 'not null', a.attnotnull, 'identity', a.attidentity, 'generated', a.attgenerated, 'default', \
                 d.oid IS NOT NULL, {}, {}",
                rendered("pg_catalog.pg_get_expr(d.adbin, d.adrelid)"),
                rights("a.attacl", "c.relowner")
            ),
            own(
                &format!(
                    "{RELATION} JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_catalog.pg_attrdef d \
                     ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
                ),
                "a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') \
                 AND c.relpersistence <> 't'",
            ),
        ),
        (
            "index",
            format!(
                "i.indexrelid::regclass, 'on', i.indrelid::regclass, (SELECT pg_catalog.string_agg(a.attname, ',' \
                   ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indexrelid), 'unique', \
                 i.indisunique, 'primary', i.indisprimary, 'valid', i.indisvalid, {}",
                rendered("pg_catalog.pg_get_indexdef(i.indexrelid)")
            ),
            own(
                &format!("{RELATION} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid"),
                "c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'",
            ),
        ),
        (
            "constraint",
            format!(
                "k.conrelid::regclass, k.conname, k.contype, 'to', k.confrelid::regclass, 'valid', k.convalidated, {}",
                rendered("pg_catalog.pg_get_constraintdef(k.oid)")
            ),
            // From 18 on NOT NULL is a constraint, too.
            format!(
                "pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace \
                 LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
                 WHERE k.contype <> 'n' AND {SCHEMAS} AND (c.oid IS NULL OR {NOT_OF_EXTENSION})"
            ),
        ),
        (
            "sequence",
            "c.oid::regclass, pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, \
             s.seqcycle"
                .to_owned(),
            own(&format!("{RELATION} JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid"), "true"),
        ),
        (
            "trigger",
            format!(
                "t.tgrelid::regclass, t.tgname, t.tgtype, t.tgenabled, t.tgfoid::regproc, {}",
                rendered("pg_catalog.pg_get_triggerdef(t.oid)")
            ),
            own(&format!("{RELATION} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid"), "NOT t.tgisinternal"),
        ),
        (
            "policy",
            format!(
                "p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, {}, 'check', {}",
                rendered("pg_catalog.pg_get_expr(p.polqual, p.polrelid)"),
                rendered("pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)")
            ),
            own(&format!("{RELATION} JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid"), "true"),
        ),
        (
            "function",
            format!(
                "pg_catalog.concat(n.nspname, '.', c.proname, '(', pg_catalog.pg_get_function_identity_arguments(c.oid), \
                 ')'), {}, c.prokind, c.provolatile, c.prosecdef, c.proisstrict, c.proconfig, pg_catalog.encode(\
                 pg_catalog.sha256(pg_catalog.convert_to(c.prosrc, 'UTF8')), 'hex'), {}",
                owner("c.proowner"),
                rights("coalesce(c.proacl, pg_catalog.acldefault('f', c.proowner))", "c.proowner")
            ),
            own("pg_catalog.pg_proc c JOIN pg_catalog.pg_namespace n ON n.oid = c.pronamespace", "true"),
        ),
        (
            "type",
            format!(
                "c.oid::regtype, c.typtype, {}, (SELECT pg_catalog.string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) \
                 FROM pg_catalog.pg_enum e WHERE e.enumtypid = c.oid)",
                owner("c.typowner")
            ),
            own(
                "pg_catalog.pg_type c JOIN pg_catalog.pg_namespace n ON n.oid = c.typnamespace",
                "c.typtype IN ('d', 'e', 'r')",
            ),
        ),
        (
            "default rights",
            format!("{}, n.nspname, d.defaclobjtype, {}", owner("d.defaclrole"), rights("d.defaclacl", "d.defaclrole")),
            "pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace".to_owned(),
        ),
        ("extension", "extname".to_owned(), "pg_catalog.pg_extension".to_owned()),
        ("publication", "pubname, puballtables".to_owned(), "pg_catalog.pg_publication".to_owned()),
        (
            "setting",
            "r.rolname, x".to_owned(),
            "pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
             AND d.datname = pg_catalog.current_database() LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
             CROSS JOIN pg_catalog.unnest(s.setconfig) x"
                .to_owned(),
        ),
    ]
}
