//! The little dense algebra that the diagnostics need: f64, row-major, plain loops.

use candle_core::Tensor;

/// A matrix of f64.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub values: Vec<f64>,
}

impl Matrix {
    /// From an f32 tensor of two dimensions.
    pub fn read(tensor: &Tensor) -> candle_core::Result<Self> {
        let (rows, cols) = tensor.dims2()?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(Matrix {
            rows,
            cols,
            values: values.into_iter().map(f64::from).collect(),
        })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }

    pub fn times(&self, right: &Matrix) -> Matrix {
        let mut values = vec![0.0; self.rows * right.cols];
        for (i, product) in values.chunks_exact_mut(right.cols).enumerate() {
            for (k, &x) in self.row(i).iter().enumerate() {
                product
                    .iter_mut()
                    .zip(right.row(k))
                    .for_each(|(sum, y)| *sum += x * y);
            }
        }
        Matrix {
            rows: self.rows,
            cols: right.cols,
            values,
        }
    }

    pub fn transposed(&self) -> Matrix {
        let at = |k: usize| self.values[(k % self.rows) * self.cols + k / self.rows];
        let values = (0..self.values.len()).map(at).collect();
        Matrix {
            rows: self.cols,
            cols: self.rows,
            values,
        }
    }

    pub fn scaled(&self, factor: f64) -> Matrix {
        self.with(self.values.iter().map(|x| factor * x).collect())
    }

    pub fn plus(&self, other: &Matrix) -> Matrix {
        self.with(
            self.values
                .iter()
                .zip(&other.values)
                .map(|(x, y)| x + y)
                .collect(),
        )
    }

    pub fn minus(&self, other: &Matrix) -> Matrix {
        self.plus(&other.scaled(-1.0))
    }

    fn with(&self, values: Vec<f64>) -> Matrix {
        Matrix { values, ..*self }
    }

    /// <self, other>, the sum of products of entries.
    pub fn dot(&self, other: &Matrix) -> f64 {
        dot(&self.values, &other.values)
    }

    /// Orthonormal rows that span the same space: Gram-Schmidt, each row twice for accuracy. Rows
    /// that depend on earlier ones, to within rounding of f32, are dropped.
    pub fn orthonormal_rows(&self) -> Matrix {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for i in 0..self.rows {
            let mut row = self.row(i).to_vec();
            for q in basis.iter().chain(&basis) {
                let along = dot(q, &row);
                row.iter_mut().zip(q).for_each(|(x, y)| *x -= along * y);
            }
            let (before, after) = (dot(self.row(i), self.row(i)).sqrt(), dot(&row, &row).sqrt());
            if after > f64::from(f32::EPSILON) * before {
                row.iter_mut().for_each(|x| *x /= after);
                basis.push(row);
            }
        }
        Matrix {
            rows: basis.len(),
            cols: self.cols,
            values: basis.concat(),
        }
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize, values: &[f64]) -> Matrix {
        Matrix {
            rows,
            cols,
            values: values.to_vec(),
        }
    }

    #[test]
    fn products_and_transposes() {
        let a = matrix(2, 3, &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(a.transposed(), matrix(3, 2, &[1., 4., 2., 5., 3., 6.]));
        assert_eq!(
            a.times(&a.transposed()),
            matrix(2, 2, &[14., 32., 32., 77.])
        );
        assert_eq!(a.minus(&a), a.scaled(0.0));
    }

    #[test]
    fn dependent_rows_are_dropped() {
        let a = matrix(3, 2, &[3., 4., 6., 8., 0., 0.]);
        assert_eq!(a.orthonormal_rows().rows, 1);
        let full = matrix(2, 2, &[1., 2., 1., 2.001]).orthonormal_rows();
        let product = full.times(&full.transposed());
        let error = product.minus(&matrix(2, 2, &[1., 0., 0., 1.]));
        assert!(error.dot(&error) < 1e-28);
    }
}
