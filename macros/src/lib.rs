//! Derive and attribute macros of the `icechest` crate, which re-exports them.

mod stage;

use proc_macro::TokenStream;
use quote::quote;
use syn::{DeriveInput, LitStr, parse_macro_input};

/// Implements `icechest::Plain`, so that a serde type can be stored. `#[plain(name = "…")]` sets the name that it is
/// stored under, followed by those of its parameters if it has any; without it that is the type's full path.
#[proc_macro_derive(Plain, attributes(plain))]
pub fn derive_plain(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a function a stage: each distinct call runs once, in this run, in later runs, for all processes. The signature stays
/// as it is.
///
/// The function may be async, a method, generic; it may return a value that can be cloned, an `Arc` of one (which is shared
/// with the chest, not copied), a `Stored` handle, or a `Result` of these, whose errors are not stored and which has to be
/// able to hold an `icechest::Error`. Without a `Result`, the function simply runs where the cache cannot be used.
///
/// Arguments are bound to their names. Arrays and frames are known by their content, all others by what `serde` tells of them.
///
/// | option | meaning |
/// | --- | --- |
/// | `chest = EXPRESSION` | the chest that keeps the results; it may use arguments, such as `self.chest` |
/// | `name = "…"` | the stage's name, by default the function's; besides count its module, its type and trait, and what generic parameters stand for |
/// | `version = 2` | another one makes new entries |
/// | `path(a, b)` | these arguments are paths of files or folders that stand for their content |
/// | `ignore(a, self)` | these play no part in the key |
/// | `round(0.01)`, `round(0.01, deep)` | rounds floats in the key; `shallow` and `deep` also those within arguments |
/// | `one_zero` | takes `0.0` and `-0.0` for one argument |
/// | `typed` | tells `1u8` from `1u64` |
/// | `key = EXPRESSION` | what the call is known by, in place of the arguments |
/// | `keymap = …`, `expire = …`, `tag = …`, `keep_memory = …`, `disable = …`, `force = …`, `when_unkeyable = …`, `validate = …`, `hook = …` | as the methods of `Stage` |
/// | `check_source` | a change of this function's text, or of its crate's version, makes new entries |
/// | `cache_errors` | stores errors too; then the whole `Result` is a plain value |
///
/// `check_source` sees the tokens of the function itself, with its attributes and documentation. It does not see what the
/// function calls, constants, macros' definitions, other crates' versions, or data that is read. A change of those needs
/// another `version`. What it takes for the source may differ between releases of the compiler.
#[proc_macro_attribute]
pub fn stage(options: TokenStream, function: TokenStream) -> TokenStream {
    stage::expand(options.into(), function.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let mut name: Option<LitStr> = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("plain")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("expected `name = \"…\"`"));
            }
            name = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    // What parameters stand for is a part of the name, as it is without one: other bytes are stored for other types.
    let types = input.generics.type_params().map(|parameter| {
        let parameter = &parameter.ident;
        quote!(<#parameter as ::icechest::Plain>::name())
    });
    let constants = input.generics.const_params().map(|parameter| {
        let parameter = &parameter.ident;
        quote!(::std::string::ToString::to_string(&#parameter))
    });
    let parameters: Vec<_> = types.chain(constants).collect();
    let name = name.map(|name| {
        let name = match parameters.as_slice() {
            [] => quote!(::std::string::String::from(#name)),
            parameters => quote!(::std::format!("{}<{}>", #name, [#(#parameters),*].join(", "))),
        };
        quote! {
            fn name() -> ::std::string::String {
                #name
            }
        }
    });
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in input.generics.type_params() {
        let parameter = &parameter.ident;
        generics.make_where_clause().predicates.push(syn::parse_quote!(#parameter: ::icechest::Plain));
    }
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, type_generics, _) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics ::icechest::Plain for #ident #type_generics #where_clause {
            #name
        }
    })
}
