//! `#[stage]`: a function's body as what a stage computes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Expr, FnArg, Ident, ItemFn, Pat, ReturnType, Signature, Token, Type, parenthesized};

/// What stands in the attribute's parentheses.
#[derive(Default)]
struct Options {
    chest: Option<Expr>,
    /// Names of arguments that are ignored, and of those that are paths to content.
    ignored: Vec<Ident>,
    paths: Vec<Ident>,
    key: Option<Expr>,
    name: Option<Expr>,
    cache_errors: bool,
    check_source: bool,
    /// Calls of the stage's methods: `.version(2)`.
    settings: Vec<TokenStream>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            options.option(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn option(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let option: Ident = input.call(syn::ext::IdentExt::parse_any)?;
        match option.to_string().as_str() {
            "chest" => self.chest = Some(value(input)?),
            "name" => self.name = Some(value(input)?),
            "key" => self.key = Some(value(input)?),
            "ignore" => self.ignored.extend(names(input)?),
            "path" => self.paths.extend(names(input)?),
            "check_source" => self.check_source = true,
            "cache_errors" => self.cache_errors = true,
            "typed" | "one_zero" => self.settings.push(quote!(.#option())),
            "round" => self.round(input)?,
            "version" | "expire" | "tag" | "keep_memory" | "disable" | "force" | "when_unkeyable" | "keymap"
            | "validate" | "hook" => {
                let value = value(input)?;
                self.settings.push(quote!(.#option(#value)));
            }
            _ => return Err(syn::Error::new(option.span(), UNKNOWN)),
        }
        Ok(())
    }

    /// `round(0.01)`, `round(0.01, deep)`.
    fn round(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let content;
        parenthesized!(content in input);
        let step: Expr = content.parse()?;
        let mut round = quote!(::icechest::Round::to(#step));
        if content.parse::<Option<Token![,]>>()?.is_some() && !content.is_empty() {
            let depth: Ident = content.parse()?;
            match depth.to_string().as_str() {
                "simple" => {}
                "shallow" | "deep" => round = quote!(#round.#depth()),
                _ => return Err(syn::Error::new(depth.span(), "expected `simple`, `shallow` or `deep`")),
            }
        }
        self.settings.push(quote!(.round(#round)));
        Ok(())
    }
}

const UNKNOWN: &str = "expected one of `chest = …`, `name = …`, `version = …`, `ignore(…)`, `path(…)`, `round(…)`, `typed`, \
                       `one_zero`, `expire = …`, `tag = …`, `key = …`, `keymap = …`, `disable = …`, `force = …`, \
                       `keep_memory = …`, `when_unkeyable = …`, `validate = …`, `hook = …`, `check_source`, `cache_errors`";

fn value(input: ParseStream<'_>) -> syn::Result<Expr> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn names(input: ParseStream<'_>) -> syn::Result<Punctuated<Ident, Token![,]>> {
    let content;
    parenthesized!(content in input);
    content.parse_terminated(|input: ParseStream<'_>| input.call(syn::ext::IdentExt::parse_any), Token![,])
}

pub(crate) fn expand(options: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let mut options: Options = syn::parse2(options)?;
    let source = function.to_string();
    let mut function: ItemFn = syn::parse2(function)?;
    let signature = &function.sig;
    let Some(chest) = options.chest.take() else {
        return Err(syn::Error::new(
            signature.ident.span(),
            "expected `#[stage(chest = …)]`: the chest that keeps the results",
        ));
    };
    if let Some(keyword) = &signature.constness {
        return Err(syn::Error::new(keyword.span(), "a constant function cannot use a chest, so it is no stage"));
    }
    let bindings = bindings(&options, &function)?;
    let name = match &options.name {
        Some(name) => quote!(#name),
        None => {
            let name = signature.ident.to_string();
            quote!(#name)
        }
    };
    let settings = &options.settings;
    let source = options.check_source.then(|| {
        let mut hasher = DefaultHasher::new();
        // Without white space and comments, which the compiler has removed; documentation it has not.
        source.hash(&mut hasher);
        let digits = format!("{:016x}", hasher.finish());
        quote!(.source(::std::concat!(#digits, " ", ::std::env!("CARGO_PKG_VERSION"))))
    });
    let run = run(&options, &function);
    let body = &function.block;
    // With its type, so that the compiler knows what `?` and `into` are to give.
    let output = &signature.output;
    let body = match signature.asyncness {
        Some(_) => quote!(#run(__call, async move || #output #body).await),
        None => quote!(#run(__call, move || #output #body)),
    };
    let place = place(&function.sig);
    let has_key = options.key.is_some();
    *function.block = syn::parse_quote! {{
        #[allow(unused_imports)]
        use ::icechest::__private::{AsContent as _, AsSerde as _};
        #place
        let __stage = ::icechest::__private::stage(&#chest, #name, __place, #has_key) #source #(#settings)*;
        let __call = __stage.call();
        #(#bindings)*
        #body
    }};
    Ok(quote!(#function))
}

/// Tells functions of one name apart: by the path of an item inside, which has the module, the type and the trait, and by
/// what generic parameters stand for.
fn place(signature: &Signature) -> TokenStream {
    let types = signature.generics.type_params().map(|parameter| &parameter.ident);
    let constants = signature.generics.const_params().map(|parameter| &parameter.ident);
    // Without a receiver `Self` may be nothing.
    let receiver = signature.receiver().map(|_| quote!(::std::any::type_name::<Self>(),));
    // Unlike an item, a closure has what generic parameters around it stand for, those without a name too.
    let closure = quote!(::std::any::type_name_of_val(&|| ()));
    let nameless = has_impl(signature.inputs.to_token_stream()).then(|| quote!(#closure,));
    quote! {
        fn __inside() {}
        let __place = ::icechest::__private::place(
            ::std::any::type_name_of_val(&__inside),
            #closure,
            &[#receiver #nameless #(::std::any::type_name::<#types>(),)* #(&::std::format!("{:?}", #constants),)*],
        );
    }
}

/// Whether an argument's type has an `impl Trait`, which is a generic parameter without a name.
fn has_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "impl",
        TokenTree::Group(group) => has_impl(group.stream()),
        _ => false,
    })
}

/// Which of the functions of the crate runs the body.
fn run(options: &Options, function: &ItemFn) -> TokenStream {
    let is_result = match &function.sig.output {
        ReturnType::Type(_, output) => match &**output {
            Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
            _ => false,
        },
        ReturnType::Default => false,
    };
    let run = match (is_result && !options.cache_errors, function.sig.asyncness.is_some()) {
        (false, false) => "run",
        (false, true) => "run_async",
        (true, false) => "try_run",
        (true, true) => "try_run_async",
    };
    let run = format_ident!("{run}");
    quote!(::icechest::__private::#run)
}

/// One statement an argument, which binds it to its name.
fn bindings(options: &Options, function: &ItemFn) -> syn::Result<Vec<TokenStream>> {
    let mut known = Vec::new();
    let mut bindings = Vec::new();
    for argument in &function.sig.inputs {
        let (name, span) = match argument {
            FnArg::Receiver(receiver) => (format_ident!("self", span = receiver.self_token.span), argument.span()),
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(pattern) => (pattern.ident.clone(), typed.ty.span()),
                pattern => return Err(syn::Error::new(pattern.span(), "an argument of a stage needs a name")),
            },
        };
        known.push(name.clone());
        if options.key.is_some() || options.ignored.contains(&name) {
            continue;
        }
        let text = name.to_string();
        bindings.push(if options.paths.contains(&name) {
            quote_spanned!(span=> let __call = ::icechest::__private::bind_path(__call, #text, &#name);)
        } else {
            quote_spanned!(span=> let __call = ::icechest::__private::Probe(&#name).bind(__call, #text);)
        });
    }
    if let (Some(_), Some(path)) = (&options.key, options.paths.first()) {
        let message = "with `key = …` no argument counts by itself; use `icechest::PathContent::new(path)` in the key";
        return Err(syn::Error::new(path.span(), message));
    }
    for name in options.ignored.iter().chain(&options.paths) {
        if !known.contains(name) {
            return Err(syn::Error::new(name.span(), format!("the function has no argument `{name}`")));
        }
    }
    if let Some(key) = &options.key {
        bindings
            .push(quote_spanned!(key.span()=> let __call = ::icechest::__private::Probe(&(#key)).bind(__call, "key");));
    }
    Ok(bindings)
}
