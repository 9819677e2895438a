//! Arrays: ndarray's owned arrays of any dimension, and one whose element type is known at run time.

use std::fmt;
use std::io;
use std::sync::Arc;

use half::f16;
use ndarray::{Array, ArrayD, ArrayView, Axis, Dimension, IxDyn, ShapeBuilder, SliceInfoElem};
use num_complex::Complex;

use super::{IntoValue, Kind, Partial, Parts, Selection, Value};
use crate::error::{Error, Result};
use crate::format::blank::{self, Blank};
use crate::format::slice::Slice;
use crate::format::{Decoder, Encoder, Format, npy};
use crate::key::{Content, Digest};

/// A type of array elements: `bool`, integers, `f16`, `f32`, `f64`, complex numbers of the last two.
///
/// ```
/// use icechest::Element;
/// assert_eq!(f64::DTYPE, "<f8");
/// ```
pub trait Element: Copy + PartialEq + fmt::Debug + Send + Sync + 'static + private::Bytes {
    /// The name of the type in Rust.
    const NAME: &'static str;
    /// The type in NumPy's notation, as NPY files have it.
    const DTYPE: &'static str;
}

pub(crate) mod private {
    use std::io;

    use crate::format::blank::Blank;

    /// How elements become bytes and come back. Sealed: the formats know these types only.
    pub trait Bytes: Sized {
        /// The elements' memory.
        fn bytes(elements: &[Self]) -> &[u8];
        /// Whether any bytes are such elements, so that a file can be looked at as some.
        const IS_ANY: bool;
        /// Memory as elements, if it lies right and any bytes are such elements.
        fn cast(bytes: &[u8]) -> Option<&[Self]>;
        /// `len` elements from memory that `fill` writes, zeroed before.
        fn read(len: usize, fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<Vec<Self>>;
        /// `len` elements from memory that `write` writes all of, which takes less time.
        fn written(len: usize, write: &mut dyn FnMut(Blank<'_>) -> io::Result<()>) -> io::Result<Vec<Self>>;
        /// Keeps memory of elements that are no more, for those that are `written` next.
        fn keep(elements: Vec<Self>);
    }
}

fn zeroed<T: bytemuck::Zeroable>(len: usize) -> io::Result<Vec<T>> {
    let memory = bytemuck::allocation::try_zeroed_slice_box(len);
    memory.map(Vec::from).map_err(|()| io::Error::new(io::ErrorKind::OutOfMemory, "no memory for the array"))
}

macro_rules! elements {
    ($($variant:ident $type:ty, $name:literal, $dtype:literal;)*) => {
        $(
            impl Element for $type {
                const NAME: &'static str = $name;
                const DTYPE: &'static str = $dtype;
            }

            impl private::Bytes for $type {
                const IS_ANY: bool = true;

                fn bytes(elements: &[Self]) -> &[u8] {
                    bytemuck::cast_slice(elements)
                }

                fn cast(bytes: &[u8]) -> Option<&[Self]> {
                    bytemuck::try_cast_slice(bytes).ok()
                }

                fn read(len: usize, fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<Vec<Self>> {
                    let mut elements = zeroed::<Self>(len)?;
                    fill(bytemuck::cast_slice_mut(&mut elements))?;
                    Ok(elements)
                }

                fn written(len: usize, write: &mut dyn FnMut(Blank<'_>) -> io::Result<()>) -> io::Result<Vec<Self>> {
                    blank::written(len, write)
                }

                fn keep(elements: Vec<Self>) {
                    blank::keep(elements);
                }
            }
        )*

        /// An array whose element type and dimension are known at run time: for tools that read whatever there is.
        ///
        /// Any stored array can be read as this, and what is stored as this can be read as an [`Array`] of its type.
        ///
        /// ```
        /// use icechest::{AnyArray, Chest};
        /// use ndarray::{Array2, array};
        /// let chest = Chest::temporary()?;
        /// chest.insert("m", array![[1.0, 2.0], [3.0, 4.0]])?;
        /// let any = chest.get::<AnyArray>("m")?;
        /// assert_eq!((any.dtype(), any.shape()), ("<f8", &[2, 2][..]));
        /// assert_eq!(any.to_string(), "f64 array of shape [2, 2]");
        /// # Ok::<(), icechest::Error>(())
        /// ```
        #[non_exhaustive]
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "each variant holds the array of the type that it is named after")]
        pub enum AnyArray {
            Bool(ArrayD<bool>),
            $($variant(ArrayD<$type>),)*
        }

        /// Runs an expression on the array inside.
        macro_rules! with_array {
            ($any:expr, $array:ident => $do:expr) => {
                match $any {
                    AnyArray::Bool($array) => $do,
                    $(AnyArray::$variant($array) => $do,)*
                }
            };
        }

        impl AnyArray {
            fn read(decoder: &mut Decoder, part: &Selection) -> Result<Self> {
                let layout = npy::read_layout(decoder)?;
                match layout.dtype.as_str() {
                    bool::DTYPE => read_array(decoder, &layout, part).map(Self::Bool),
                    $(<$type>::DTYPE => read_array(decoder, &layout, part).map(Self::$variant),)*
                    other => Err(Error::unsupported(format!("arrays of dtype {other:?} cannot be read"))),
                }
            }
        }
    };
}
elements! {
    I8 i8, "i8", "|i1"; I16 i16, "i16", "<i2"; I32 i32, "i32", "<i4"; I64 i64, "i64", "<i8";
    U8 u8, "u8", "|u1"; U16 u16, "u16", "<u2"; U32 u32, "u32", "<u4"; U64 u64, "u64", "<u8";
    F16 f16, "f16", "<f2"; F32 f32, "f32", "<f4"; F64 f64, "f64", "<f8";
    Complex32 Complex<f32>, "Complex<f32>", "<c8"; Complex64 Complex<f64>, "Complex<f64>", "<c16";
}

impl Element for bool {
    const NAME: &'static str = "bool";
    const DTYPE: &'static str = "|b1";
}

impl private::Bytes for bool {
    const IS_ANY: bool = false;

    fn bytes(elements: &[Self]) -> &[u8] {
        bytemuck::cast_slice(elements)
    }

    /// None: what lies in a file may become anything, and not every byte is a truth value.
    fn cast(_bytes: &[u8]) -> Option<&[Self]> {
        None
    }

    fn read(len: usize, fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<Vec<Self>> {
        let mut bytes = zeroed::<u8>(len)?;
        fill(&mut bytes)?;
        truth(bytes)
    }

    fn written(len: usize, write: &mut dyn FnMut(Blank<'_>) -> io::Result<()>) -> io::Result<Vec<Self>> {
        truth(blank::written(len, write)?)
    }

    fn keep(elements: Vec<Self>) {
        if let Ok(bytes) = bytemuck::allocation::try_cast_vec::<bool, u8>(elements) {
            blank::keep(bytes);
        }
    }
}

fn truth(bytes: Vec<u8>) -> io::Result<Vec<bool>> {
    if bytes.iter().any(|&byte| byte > 1) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a truth value is neither 0 nor 1"));
    }
    Ok(bytes.into_iter().map(|byte| byte == 1).collect())
}

impl<A: Element, D: Dimension + Send + Sync + 'static> Value for Array<A, D> {
    const KIND: Kind = Kind::Array;

    fn type_name() -> String {
        match D::NDIM {
            Some(ndim) => format!("Array<{}, {ndim}>", A::NAME),
            None => format!("Array<{}, dyn>", A::NAME),
        }
    }

    fn stored_name(&self) -> String {
        format!("Array<{}, {}>", A::NAME, self.ndim())
    }

    /// An array of the right element type and of this dimension, or of any if it is dynamic.
    fn reads(stored_name: &str) -> bool {
        stored_name == Self::type_name()
            || D::NDIM.is_none() && stored_name.starts_with(&format!("Array<{}, ", A::NAME))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.len() * size_of::<A>()
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        npy::encode(self.view().into_dyn(), out)
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        Self::decode_part(input, &Selection::default())
    }

    fn recycle(self) {
        A::keep(self.into_raw_vec_and_offset().0);
    }
}

impl<A: Element, D: Dimension + Send + Sync + 'static> Partial for Array<A, D> {}

impl<A: Element, D: Dimension + Send + Sync + 'static> Parts for Array<A, D> {
    fn part(&self, part: &Selection) -> Result<Self> {
        let rows = part.rows_of(check_rows(self.shape(), part)?);
        Ok(self.slice_axis(Axis(0), rows.into()).to_owned())
    }

    fn decode_part(input: &mut Decoder, part: &Selection) -> Result<Self> {
        let layout = npy::read_layout(input)?;
        read_array(input, &layout, part)
    }

    fn height(&self) -> Result<usize> {
        check_rows(self.shape(), &Selection::default())
    }

    fn check_follows(&self, before: &Self) -> Result<()> {
        if self.ndim() == before.ndim() && self.shape().get(1..) == before.shape().get(1..) {
            return Ok(());
        }
        let (rows, stored) = (self.shape(), before.shape().get(1..).unwrap_or_default());
        Err(Error::invalid(format!("an array of the shape {rows:?} has not rows of the shape {stored:?}")))
    }

    fn join(parts: Vec<Self>) -> Result<Self> {
        into_dimensions(concatenate(parts.iter().map(|part| part.view().into_dyn()).collect())?)
    }
}

fn concatenate<A: Element>(parts: Vec<ArrayView<'_, A, IxDyn>>) -> Result<ArrayD<A>> {
    ndarray::concatenate(Axis(0), &parts)
        .map_err(|error| Error::invalid("the rows do not fit together").with_source(error))
}

/// Reads what is selected; everything the fast way.
fn read_array<A: Element, D: Dimension>(
    input: &mut Decoder,
    layout: &npy::Layout,
    part: &Selection,
) -> Result<Array<A, D>> {
    check_layout::<A, D>(layout)?;
    if part.rows.is_some() || part.columns.is_some() {
        let rows = part.rows_of(check_rows(&layout.shape, part)?);
        let rest = SliceInfoElem::Slice { start: 0, end: None, step: 1 };
        let mut elements = vec![rest; layout.shape.len()];
        elements[0] = SliceInfoElem::from(rows);
        let array = Slice::new(&layout.shape, &elements)?.read(input, layout)?;
        return into_dimensions(array);
    }
    let mut shape = D::zeros(layout.shape.len());
    shape.slice_mut().copy_from_slice(&layout.shape);
    let elements = npy::read_elements(input, layout)?;
    let shape = shape.set_f(layout.fortran_order);
    Array::from_shape_vec(shape, elements)
        .map_err(|error| Error::damaged("the array has no such shape").with_source(error))
}

/// Reads a slice of any axes.
pub(crate) fn read_slice<A: Element, D: Dimension, O: Dimension>(
    input: &mut Decoder,
    layout: &npy::Layout,
    slice: Slice,
) -> Result<Array<A, O>> {
    check_layout::<A, D>(layout)?;
    into_dimensions(slice.read(input, layout)?)
}

pub(super) fn check_layout<A: Element, D: Dimension>(layout: &npy::Layout) -> Result<()> {
    let ndim = layout.shape.len();
    if layout.dtype == A::DTYPE && D::NDIM.is_none_or(|wanted| wanted == ndim) {
        return Ok(());
    }
    let dtype = &layout.dtype;
    Err(Error::damaged(format!("the file holds {ndim} dimensions of dtype {dtype:?}, which the catalog does not say")))
}

/// The number of rows, where there can be any.
fn check_rows(shape: &[usize], part: &Selection) -> Result<usize> {
    if part.columns.is_some() {
        return Err(Error::unsupported("an array has no columns with names; slice its axes"));
    }
    shape.first().copied().ok_or_else(|| Error::unsupported("an array without dimensions has no rows"))
}

pub(crate) fn into_dimensions<A, D: Dimension>(array: ArrayD<A>) -> Result<Array<A, D>> {
    array.into_dimensionality().map_err(|error| Error::invalid("the slice has other dimensions").with_source(error))
}

impl<A: Element, D: Dimension + Send + Sync + 'static> IntoValue for ArrayView<'_, A, D> {
    type Value = Array<A, D>;

    /// A copy, in Fortran order if the view is.
    fn into_value(self) -> Arc<Array<A, D>> {
        Arc::new(self.to_owned())
    }
}

impl AnyArray {
    /// The element type in NumPy's notation.
    pub fn dtype(&self) -> &'static str {
        fn of<A: Element>(_: &ArrayD<A>) -> &'static str {
            A::DTYPE
        }
        with_array!(self, array => of(array))
    }

    /// The name of the element type in Rust.
    pub fn element_name(&self) -> &'static str {
        fn of<A: Element>(_: &ArrayD<A>) -> &'static str {
            A::NAME
        }
        with_array!(self, array => of(array))
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        with_array!(self, array => array.shape())
    }

    /// The array, if `A` is its element type.
    ///
    /// ```
    /// use icechest::AnyArray;
    /// let any = AnyArray::from(ndarray::array![1u8, 2].into_dyn());
    /// assert_eq!(any.downcast_ref::<u8>().unwrap().sum(), 3);
    /// assert!(any.downcast_ref::<i8>().is_none());
    /// ```
    pub fn downcast_ref<A: Element>(&self) -> Option<&ArrayD<A>> {
        with_array!(self, array => (array as &dyn std::any::Any).downcast_ref())
    }

    /// Reads an NPY file, of either byte order.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when it is no NPY file, [`Unsupported`](crate::ErrorKind::Unsupported) for
    /// element types other than those of [`Element`].
    pub fn from_npy(file: std::fs::File) -> Result<Self> {
        Self::read(&mut Decoder::of_foreign_file(file, "npy")?, &Selection::default())
    }

    /// Writes an NPY file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_npy(&self, out: &mut dyn io::Write) -> Result<()> {
        with_array!(self, array => npy::write(array.view(), out))
            .map_err(|error| Error::io("cannot write the array", error))
    }
}

macro_rules! any_from {
    ($($variant:ident $type:ty),*) => {$(
        impl From<ArrayD<$type>> for AnyArray {
            fn from(array: ArrayD<$type>) -> Self {
                Self::$variant(array)
            }
        }
    )*};
}
any_from!(
    Bool bool, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64, F16 f16, F32 f32, F64 f64,
    Complex32 Complex<f32>, Complex64 Complex<f64>
);

impl fmt::Display for AnyArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} array of shape {:?}", self.element_name(), self.shape())
    }
}

impl Content for AnyArray {
    fn digest(&self) -> Digest {
        with_array!(self, array => array.digest())
    }
}

impl Value for AnyArray {
    const KIND: Kind = Kind::Array;

    fn type_name() -> String {
        "AnyArray".to_owned()
    }

    fn stored_name(&self) -> String {
        with_array!(self, array => Value::stored_name(array))
    }

    fn reads(stored_name: &str) -> bool {
        stored_name.starts_with("Array<")
    }

    fn size(&self) -> usize {
        with_array!(self, array => size_of::<Self>() + size_of_val_in(array))
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        with_array!(self, array => npy::encode(array.view(), out))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        Self::read(input, &Selection::default())
    }

    fn recycle(self) {
        with_array!(self, array => array.recycle());
    }
}

impl Partial for AnyArray {}

impl Parts for AnyArray {
    fn part(&self, part: &Selection) -> Result<Self> {
        with_array!(self, array => array.part(part).map(Self::from))
    }

    fn decode_part(input: &mut Decoder, part: &Selection) -> Result<Self> {
        Self::read(input, part)
    }

    fn height(&self) -> Result<usize> {
        check_rows(self.shape(), &Selection::default())
    }

    fn check_follows(&self, before: &Self) -> Result<()> {
        fn check<A: Element>(array: &ArrayD<A>, before: &AnyArray) -> Result<()> {
            match before.downcast_ref() {
                Some(before) => array.check_follows(before),
                None => {
                    let (is, was) = (A::NAME, before.element_name());
                    Err(Error::invalid(format!("an array of {is} cannot follow one of {was}")))
                }
            }
        }
        with_array!(self, array => check(array, before))
    }

    fn join(parts: Vec<Self>) -> Result<Self> {
        fn join<A: Element>(_first: &ArrayD<A>, parts: &[AnyArray]) -> Result<ArrayD<A>> {
            concatenate(parts.iter().filter_map(AnyArray::downcast_ref).map(|part| part.view()).collect())
        }
        let Some(first) = parts.first() else { return Err(Error::invalid("there are no parts to join")) };
        with_array!(first, first => join(first, &parts).map(Self::from))
    }
}

fn size_of_val_in<A: Element>(array: &Array<A, IxDyn>) -> usize {
    array.len() * size_of::<A>()
}
