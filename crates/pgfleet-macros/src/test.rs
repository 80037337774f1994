//! Tests with a database of their own.

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Attribute, FnArg, LitStr, Safety, Signature, Token, Type, Visibility};

use crate::embed::{error, parse_layout};

/// The folders that are taken where nothing else is said and they exist.
const MIGRATIONS: &str = "migrations";
const SEEDS: &str = "seeds";

/// What stands in the parentheses of the attribute.
#[derive(Default)]
struct Arguments {
    migrations: Option<LitStr>,
    layout: Option<LitStr>,
    seeds: Option<LitStr>,
    service: Option<syn::Path>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        let mut keys: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if keys.contains(&key) {
                return Err(error(key.span(), format!("`{key}` is given twice"), "keep one of them"));
            }
            let name = key.to_string();
            if !["migrations", "layout", "seeds", "service"].contains(&name.as_str()) {
                let hint = "keys are `migrations`, `layout`, `seeds` and `service`";
                return Err(error(key.span(), format!("unknown key `{name}`"), hint));
            }
            input.parse::<Token![=]>()?;
            match name.as_str() {
                "migrations" => arguments.migrations = Some(input.parse()?),
                "layout" => arguments.layout = Some(input.parse()?),
                "seeds" => arguments.seeds = Some(input.parse()?),
                _ => arguments.service = Some(service(input)?),
            }
            keys.push(key);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if arguments.service.is_some()
            && let Some(other) = keys.iter().find(|key| **key != "service")
        {
            let hint = format!("leave out `{other}`: the function says what the service consists of");
            return Err(error(other.span(), format!("`service` and `{other}` exclude each other"), &hint));
        }
        Ok(arguments)
    }
}

fn service(input: ParseStream<'_>) -> syn::Result<syn::Path> {
    if input.peek(LitStr) {
        let hint = "write the path of a `fn() -> pgfleet::Builder` without quotes: service = crate::service";
        return Err(error(input.span(), "`service` takes a path, not a string", hint));
    }
    input.parse()
}

/// A function whose body is left as it is: what is wrong inside is for the compiler to say.
struct Function {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: TokenTree,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: input.parse()?,
        })
    }
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream, root: &Path) -> syn::Result<TokenStream> {
    let Function { attributes, visibility, signature, body } = syn::parse2(item.clone()).map_err(|_| {
        let at = item.into_iter().next().map_or_else(Span::call_site, |first| first.span());
        error(at, "only a function can be a test", "write `async fn name(db: pgfleet::test::Database) { … }`")
    })?;
    let argument = check(&attributes, &signature)?;
    let builder = builder(syn::parse2(arguments)?, root)?;
    let Signature { ident, output, .. } = &signature;
    // An argument of a type that cannot be made is reported at the type.
    let run = quote_spanned!(Span::call_site().located_at(argument.span()) => ::pgfleet::test::run(#builder, #ident));
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attributes)*
        #visibility fn #ident() #output {
            #signature #body
            #run
        }
    })
}

/// Returns the type of the one argument.
fn check<'a>(attributes: &[Attribute], signature: &'a Signature) -> syn::Result<&'a Type> {
    let is_test = |attribute: &&Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test");
    if let Some(second) = attributes.iter().find(is_test) {
        let hint = "remove the second attribute: `#[pgfleet::test]` makes an ordinary test by itself";
        return Err(error(second.span(), "the function is a test twice", hint));
    }
    if signature.asyncness.is_none() {
        let at = signature.fn_token.span();
        return Err(error(at, "a test with a database is async", "write `async fn`"));
    }
    let odd = match signature {
        Signature { safety: safety @ (Safety::Unsafe(_) | Safety::Safe(_)), .. } => Some(safety.to_token_stream()),
        Signature { constness: Some(constness), .. } => Some(constness.to_token_stream()),
        Signature { abi: Some(abi), .. } => Some(abi.to_token_stream()),
        Signature { generics, .. } if !generics.params.is_empty() => Some(generics.to_token_stream()),
        _ => None,
    };
    if let Some(odd) = odd {
        let message = format!("a test cannot be `{odd}`");
        return Err(error(odd.span(), message, "write a plain `async fn` without parameters of types"));
    }
    let hint = "take one argument, such as `db: pgfleet::test::Database`";
    let mut inputs = signature.inputs.iter();
    let typed = match inputs.next() {
        Some(FnArg::Typed(typed)) => typed,
        Some(FnArg::Receiver(receiver)) => return Err(error(receiver.span(), "a test has no `self`", hint)),
        None => return Err(error(signature.ident.span(), "the test takes no database", hint)),
    };
    if let Some(second) = inputs.next() {
        return Err(error(second.span(), "the test takes more than one argument", hint));
    }
    Ok(&typed.ty)
}

/// A function that makes the builder of the service.
fn builder(arguments: Arguments, root: &Path) -> syn::Result<TokenStream> {
    let Arguments { migrations, layout, seeds, service } = arguments;
    if let Some(service) = service {
        return Ok(service.to_token_stream());
    }
    let by_default = |name: &str| root.join(name).is_dir().then(|| LitStr::new(name, Span::call_site()));
    let migrations = migrations.or_else(|| by_default(MIGRATIONS));
    let seeds = seeds.or_else(|| by_default(SEEDS));
    if let Some(layout) = &layout {
        parse_layout(layout)?;
        if migrations.is_none() {
            let message = format!("a layout, but no folder `{MIGRATIONS}` beside Cargo.toml");
            return Err(error(layout.span(), message, "name the folder: migrations = \"…\""));
        }
    }
    for folder in migrations.iter().chain(&seeds) {
        let path = root.join(folder.value());
        if !path.is_dir() {
            let message = format!("there is no folder {}", path.display());
            return Err(error(folder.span(), message, "the path is relative to the folder of Cargo.toml"));
        }
    }
    let layout = layout.map(|layout| quote!(, layout = #layout));
    let migrations = migrations.map(|folder| quote!(.migrations(::pgfleet::migrations!(#folder #layout))));
    let seeds = seeds.map(|folder| quote!(.seeds(::pgfleet::seeds!(#folder))));
    Ok(quote!(|| ::pgfleet::Service::builder("test") #migrations #seeds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn root(folders: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        root
    }

    fn item() -> TokenStream {
        quote!(
            async fn adds(db: Database) {}
        )
    }

    /// The argument that `run` gets in place of the builder.
    fn builder(folders: &[&str], arguments: TokenStream) -> String {
        let expanded = expand(arguments, item(), root(folders).path()).unwrap();
        let expected = |builder: TokenStream| {
            quote! {
                #[::core::prelude::v1::test]
                fn adds() {
                    async fn adds(db: Database) {}
                    ::pgfleet::test::run(#builder, adds)
                }
            }
        };
        let marked = expected(quote!(BUILDER)).to_string();
        let (before, after) = marked.split_once("BUILDER").unwrap();
        expanded.to_string().strip_prefix(before).unwrap().strip_suffix(after).unwrap().trim().to_owned()
    }

    fn fails(arguments: TokenStream, item: TokenStream) -> String {
        let error = expand(arguments, item, root(&["migrations", "seeds"]).path()).unwrap_err().to_string();
        let (message, hint) = error.split_once("\nhint: ").unwrap();
        assert!(!hint.is_empty());
        message.to_owned()
    }

    #[test]
    fn folders_are_taken_where_they_exist() {
        let service = quote!(|| ::pgfleet::Service::builder("test"));
        let migrations = quote!(.migrations(::pgfleet::migrations!("migrations")));
        let seeds = quote!(.seeds(::pgfleet::seeds!("seeds")));
        assert_eq!(builder(&[], quote!()), service.to_string());
        assert_eq!(builder(&["migrations"], quote!()), quote!(#service #migrations).to_string());
        assert_eq!(builder(&["seeds"], quote!()), quote!(#service #seeds).to_string());
        assert_eq!(builder(&["seeds", "migrations"], quote!()), quote!(#service #migrations #seeds).to_string());
    }

    #[test]
    fn folders_layout_and_service_can_be_named() {
        assert_eq!(
            builder(&["a", "b"], quote!(migrations = "a", seeds = "b", layout = "goose",)),
            quote!(|| ::pgfleet::Service::builder("test")
                .migrations(::pgfleet::migrations!("a", layout = "goose"))
                .seeds(::pgfleet::seeds!("b")))
            .to_string()
        );
        assert_eq!(
            builder(&["migrations"], quote!(layout = "goose")),
            quote!(|| ::pgfleet::Service::builder("test")
                .migrations(::pgfleet::migrations!("migrations", layout = "goose")))
            .to_string()
        );
        assert_eq!(builder(&["migrations"], quote!(service = path::to::service)), "path :: to :: service");
    }

    #[test]
    fn attributes_visibility_and_result_stay_on_the_test() {
        let item = quote! {
            /// Adds.
            #[ignore = "slow"]
            #[should_panic(expected = "x")]
            pub(crate) async fn adds(mut db: my::Database<'_>) -> Result<(), Error> { db.add().await }
        };
        let expected = quote! {
            #[::core::prelude::v1::test]
            /// Adds.
            #[ignore = "slow"]
            #[should_panic(expected = "x")]
            pub(crate) fn adds() -> Result<(), Error> {
                async fn adds(mut db: my::Database<'_>) -> Result<(), Error> { db.add().await }
                ::pgfleet::test::run(service, adds)
            }
        };
        let expanded = expand(quote!(service = service), item, root(&[]).path()).unwrap();
        assert_eq!(expanded.to_string(), expected.to_string());
    }

    #[test]
    fn functions_that_cannot_be_such_a_test_are_refused() {
        let fails = |item| fails(quote!(), item);
        assert_eq!(
            fails(quote!(
                fn a(db: Database) {}
            )),
            "a test with a database is async"
        );
        assert_eq!(
            fails(quote!(
                async fn a() {}
            )),
            "the test takes no database"
        );
        assert_eq!(
            fails(quote!(
                async fn a(a: Database, b: Database) {}
            )),
            "the test takes more than one argument"
        );
        assert_eq!(
            fails(quote!(
                async fn a(self) {}
            )),
            "a test has no `self`"
        );
        assert_eq!(
            fails(quote!(
                async unsafe fn a(db: Database) {}
            )),
            "a test cannot be `unsafe`"
        );
        assert_eq!(
            fails(quote!(
                async fn a<T>(db: T) {}
            )),
            "a test cannot be `< T >`"
        );
        assert_eq!(
            fails(quote!(
                #[test]
                async fn a(db: Database) {}
            )),
            "the function is a test twice"
        );
        assert_eq!(
            fails(quote!(
                #[tokio::test]
                async fn a(db: Database) {}
            )),
            "the function is a test twice"
        );
        assert_eq!(
            fails(quote!(
                struct A;
            )),
            "only a function can be a test"
        );
    }

    #[test]
    fn mistakes_in_the_arguments_are_named() {
        let fails = |arguments| fails(arguments, item());
        assert_eq!(fails(quote!(migration = "migrations")), "unknown key `migration`");
        assert_eq!(fails(quote!(seeds = "seeds", seeds = "seeds")), "`seeds` is given twice");
        assert_eq!(fails(quote!(service = a, seeds = "seeds")), "`service` and `seeds` exclude each other");
        assert_eq!(fails(quote!(migrations = "m", service = a)), "`service` and `migrations` exclude each other");
        assert_eq!(fails(quote!(service = "a")), "`service` takes a path, not a string");
        assert_eq!(fails(quote!(layout = "x")), "unknown layout `x`");
        assert!(fails(quote!(migrations = "nowhere")).starts_with("there is no folder "));
        assert!(fails(quote!(seeds = "nowhere")).starts_with("there is no folder "));
        let error = expand(quote!(layout = "goose"), item(), root(&[]).path()).unwrap_err().to_string();
        assert!(error.starts_with("a layout, but no folder `migrations`"), "{error}");
        for wrong in [quote!(migrations), quote!("migrations"), quote!(migrations = 1), quote!(seeds = "seeds" layout)]
        {
            assert!(expand(wrong, item(), root(&["seeds"]).path()).is_err());
        }
    }
}
