//! What the layers of a variant have to be: first the very layers of its base, then one for each component in order,
//! and none of them larger than it is allowed to be. Refuses an image with any other layer.

/// Digest and compressed size of a layer.
pub type Layer = (String, u64);

/// What a layer is called, and the most that it may have, in units of 10^6 bytes.
pub type Budget<'a> = (&'a str, u64);

/// What is wrong with a base's layers, a line each; `budgets` are in their order.
pub fn base_problems(base: &[Layer], budgets: &[Budget]) -> Vec<String> {
    if base.len() != budgets.len() {
        return vec![format!("has {} layers, and devbox.toml has {} base_layers", base.len(), budgets.len())];
    }
    over_budget(base, budgets)
}

/// What is wrong with a variant's layers, a line each; `components` are in the order of their layers.
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

#[cfg(test)]
mod tests {
    use super::*;

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
