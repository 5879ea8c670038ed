//! Lays values out as rectangles whose areas are in proportion to them, as near to squares as possible (Bruls, Huizing and van
//! Wijk, "Squarified Treemaps").

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    fn size(&self) -> f64 {
        self.width * self.height
    }
}

/// A rectangle inside `area` for each value, in the order of the values, which have to go down. Values of nothing get a
/// rectangle without a size.
pub fn squarified(values: &[f64], area: Area) -> Vec<Area> {
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 || area.size() <= 0.0 {
        return vec![Area { width: 0.0, height: 0.0, ..area }; values.len()];
    }
    let scale = area.size() / sum;
    let sizes: Vec<f64> = values.iter().map(|value| value * scale).collect();
    let (mut left, mut done) = (area, Vec::with_capacity(values.len()));
    while done.len() < sizes.len() {
        let row = row(&sizes[done.len()..], left.width.min(left.height));
        let (areas, rest) = laid(row, left);
        done.extend(areas);
        left = rest;
    }
    done
}

/// The first sizes that stand best side by side along an edge: one more would make the worst of them longer.
fn row(sizes: &[f64], edge: f64) -> &[f64] {
    let mut length = 1;
    while length < sizes.len() && worst(&sizes[..length + 1], edge) <= worst(&sizes[..length], edge) {
        length += 1;
    }
    &sizes[..length]
}

/// The largest ratio of the edges of these sizes, side by side along an edge.
fn worst(row: &[f64], edge: f64) -> f64 {
    let sum: f64 = row.iter().sum();
    let ratio = |size: &f64| {
        let (a, b) = (edge * edge * size, sum * sum);
        if a <= 0.0 { 0.0 } else { (a / b).max(b / a) }
    };
    row.iter().map(ratio).fold(0.0, f64::max)
}

/// A row along the shorter edge of what is left, and what is left then.
fn laid(row: &[f64], left: Area) -> (Vec<Area>, Area) {
    let sum: f64 = row.iter().sum();
    let is_wide = left.width >= left.height;
    let edge = if is_wide { left.height } else { left.width };
    let depth = if edge > 0.0 { sum / edge } else { 0.0 };
    let mut at = 0.0;
    let areas = row.iter().map(|size| {
        let length = if depth > 0.0 { size / depth } else { 0.0 };
        let area = match is_wide {
            true => Area { x: left.x, y: left.y + at, width: depth, height: length },
            false => Area { x: left.x + at, y: left.y, width: length, height: depth },
        };
        at += length;
        area
    });
    let areas = areas.collect();
    let rest = match is_wide {
        true => Area { x: left.x + depth, width: (left.width - depth).max(0.0), ..left },
        false => Area { y: left.y + depth, height: (left.height - depth).max(0.0), ..left },
    };
    (areas, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper.
    #[test]
    fn areas_are_those_of_the_paper() {
        let area = Area { width: 6.0, height: 4.0, ..Area::default() };
        let found = squarified(&[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], area);
        assert_eq!(found[0], Area { x: 0.0, y: 0.0, width: 3.0, height: 2.0 });
        assert_eq!(found[1], Area { x: 0.0, y: 2.0, width: 3.0, height: 2.0 });
        assert!((found[2].width - 12.0 / 7.0).abs() < 1e-9 && (found[2].height - 7.0 / 3.0).abs() < 1e-9);
    }

    proptest::proptest! {
        #[test]
        fn areas_are_in_proportion_and_inside(mut values in proptest::collection::vec(0.0f64..1e9, 1..60)) {
            values.sort_by(|a, b| b.total_cmp(a));
            let whole = Area { x: 3.0, y: 5.0, width: 960.0, height: 420.0 };
            let areas = squarified(&values, whole);
            let sum: f64 = values.iter().sum();
            for (value, area) in values.iter().zip(&areas) {
                let expected = if sum > 0.0 { value / sum * whole.size() } else { 0.0 };
                assert!((area.size() - expected).abs() < 1e-3, "{area:?} {expected}");
                assert!(area.x >= 2.999 && area.y >= 4.999, "{area:?}");
                assert!(area.x + area.width <= 963.001 && area.y + area.height <= 425.001, "{area:?}");
            }
            for (at, a) in areas.iter().enumerate() {
                for b in &areas[at + 1..] {
                    let apart = a.x + a.width <= b.x + 1e-6 || b.x + b.width <= a.x + 1e-6
                        || a.y + a.height <= b.y + 1e-6 || b.y + b.height <= a.y + 1e-6;
                    assert!(apart || a.size() < 1e-6 || b.size() < 1e-6, "{a:?} {b:?}");
                }
            }
        }
    }
}
