//! What the layers of a variant have to be: first the very layers of its base, then one for each component in order and one
//! for the image's identity, and none of them larger than it is allowed to be. Refuses an image with any other layer.

/// Digest and compressed size of a layer.
pub type Layer = (String, u64);

/// What a layer is called, and the most that it may have, in units of 10^6 bytes.
pub type Budget<'a> = (&'a str, u64);

/// The last layer of a variant: the file that tells a container which image it runs, as if it were a component.
pub const IDENTITY: &str = "identity";

/// The budget of that layer.
pub const IDENTITY_MB: u64 = 1;

/// What is wrong with a base's layers, a line each; `budgets` are in their order.
pub fn base_problems(base: &[Layer], budgets: &[Budget]) -> Vec<String> {
    if base.len() != budgets.len() {
        return vec![format!("has {} layers, and devbox.toml has {} base_layers", base.len(), budgets.len())];
    }
    over_budget(base, budgets)
}

/// What is wrong with a variant's layers, a line each; `components` are in the order of their layers, the identity last.
pub fn problems(base: &[Layer], variant: &[Layer], components: &[Budget]) -> Vec<String> {
    let digests = |layers: &[Layer]| layers.iter().map(|(digest, _)| digest.clone()).collect::<Vec<_>>();
    if !digests(variant).starts_with(&digests(base)) {
        return vec!["does not begin with the layers of its base".to_owned()];
    }
    let own = &variant[base.len()..];
    if own.len() != components.len() {
        return vec![format!("has {} layers for {} components", own.len(), components.len())];
    }
    over_budget(own, components)
}

fn over_budget(layers: &[Layer], budgets: &[Budget]) -> Vec<String> {
    let over = |((name, budget), (_, size)): (&Budget, &Layer)| {
        let mb = *size as f64 / 1e6;
        (*size > budget * 1_000_000).then(|| format!("has {mb:.1} MB of {name}, whose budget_mb is {budget}"))
    };
    budgets.iter().zip(layers).filter_map(over).collect()
}

/// The file that says in an image which component a layer brings, without a slash before it.
pub fn facts_file(component: &str) -> String {
    match component {
        IDENTITY => "usr/share/devbox/image.json".to_owned(),
        _ => format!("usr/share/devbox/components/{component}.json"),
    }
}

/// One entry of a layer's archive.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub path: String,
    /// Mode, user and group of a folder; nothing for anything else.
    pub folder: Option<(u32, u64, u64)>,
    pub hard_link: Option<String>,
}

/// Why an entry may not be in the layer of a component that owns `paths`; nothing if it may.
///
/// A folder on the way to a path of the component may be in every layer. A whiteout (image-spec, "Whiteouts") would take
/// away a file below, and so would a file in the place of a folder.
pub fn foreign_entry(entry: &Entry, component: &str, paths: &[String]) -> Option<String> {
    let path = entry.path.trim_start_matches("./").trim_matches('/');
    if path.split('/').any(|name| name.starts_with(".wh.")) {
        return Some(format!("removes files of other layers with /{path}"));
    }
    if path.split('/').any(|name| name == "..") {
        return Some(format!("has /{path}"));
    }
    let facts = facts_file(component);
    let owned = || paths.iter().map(|own| own.trim_matches('/')).chain([facts.as_str()]);
    let is_below = |path: &str, folder: &str| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let owns = |path: &str| owned().any(|own| is_below(path, own));
    if let Some(mode_and_owner) = entry.folder
        && !owns(path)
        && (path.is_empty() || owned().any(|own| is_below(own, path)))
    {
        // The last layer that has a folder decides on its mode and owner.
        let changes = mode_and_owner != (0o755, 0, 0);
        return changes.then(|| format!("changes the mode or the owner of /{path}"));
    }
    if !owns(path) {
        return Some(format!(
            "has /{path}, which is not among the paths of {component} in images/devbox.toml"
        ));
    }
    let target = entry.hard_link.as_deref().map(|link| link.trim_start_matches("./").trim_matches('/'));
    target.filter(|link| !owns(link)).map(|link| format!("links /{path} to /{link} of another layer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_has_its_own_files_only() {
        let paths = ["/opt/pi".to_owned(), "/usr/local/bin/pi".to_owned()];
        let check = |path: &str, is_folder: bool, link: Option<&str>| {
            let folder = is_folder.then_some((0o755, 0, 0));
            let entry = Entry { path: path.to_owned(), folder, hard_link: link.map(str::to_owned) };
            foreign_entry(&entry, "pi", &paths)
        };
        let usr = |mode| Entry { path: "usr/".to_owned(), folder: Some(mode), hard_link: None };
        assert_eq!(foreign_entry(&usr((0o755, 0, 0)), "pi", &paths), None);
        for mode in [(0o700, 0, 0), (0o755, 1000, 0), (0o1777, 0, 0)] {
            assert!(foreign_entry(&usr(mode), "pi", &paths).is_some(), "{mode:?}");
        }
        for folder in
            ["", "opt/", "usr/", "usr/local/bin/", "opt/pi/", "./opt/pi/x/", "usr/share/devbox/components/"]
        {
            assert_eq!(check(folder, true, None), None, "{folder}");
        }
        for file in ["opt/pi/a", "usr/local/bin/pi", "usr/share/devbox/components/pi.json"] {
            assert_eq!(check(file, false, None), None, "{file}");
        }
        for file in [
            "opt/pix",
            "usr/local/bin/bun",
            "usr",
            "opt",
            "etc/passwd",
            "usr/share/devbox/components/bun.json",
        ] {
            assert!(check(file, false, None).is_some(), "{file}");
        }
        for folder in ["etc/", "opt/bun/", "home/developer/"] {
            assert!(check(folder, true, None).is_some(), "{folder}");
        }
        for path in ["opt/pi/.wh.a", "opt/pi/.wh..wh..opq", ".wh.usr", "opt/pi/../../etc/passwd"] {
            assert!(check(path, false, None).is_some(), "{path}");
        }
        assert_eq!(check("opt/pi/b", false, Some("opt/pi/a")), None);
        assert!(check("opt/pi/b", false, Some("etc/passwd")).is_some());
    }

    fn layers(sizes: &[(&str, u64)]) -> Vec<Layer> {
        sizes.iter().map(|(digest, mb)| ((*digest).to_owned(), mb * 1_000_000)).collect()
    }

    #[track_caller]
    fn check(variant: &[(&str, u64)], expected: &[&str]) {
        let base = layers(&[("a", 30), ("b", 300)]);
        assert_eq!(problems(&base, &layers(variant), &[("opencode", 60), ("pi", 20)]), expected);
    }

    #[test]
    fn base_order_and_budgets_are_held() {
        check(&[("a", 30), ("b", 300), ("c", 58), ("d", 17)], &[]);
        check(
            &[("a", 30), ("x", 300), ("c", 58), ("d", 17)],
            &["does not begin with the layers of its base"],
        );
        check(&[("a", 30), ("b", 300), ("c", 60), ("d", 20)], &[]);
        check(&[("a", 30), ("b", 300), ("c", 58)], &["has 1 layers for 2 components"]);
        check(
            &[("a", 30), ("b", 300), ("c", 61), ("d", 17)],
            &["has 61.0 MB of opencode, whose budget_mb is 60"],
        );
    }

    #[test]
    fn the_layers_of_a_base_have_budgets_too() {
        let budgets = [("debian", 31), ("packages", 310)];
        let check = |sizes: &[(&str, u64)]| base_problems(&layers(sizes), &budgets);
        assert!(check(&[("a", 30), ("b", 300)]).is_empty());
        assert_eq!(check(&[("a", 30), ("b", 311)]), ["has 311.0 MB of packages, whose budget_mb is 310"]);
        assert_eq!(check(&[("a", 30)]), ["has 1 layers, and devbox.toml has 2 base_layers"]);
    }
}
