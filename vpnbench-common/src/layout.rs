//! Field tables of the event structs. They make the trace file self-describing and feed the
//! generated documentation and exports; nothing on the hot path reads them.

/// One field of an event struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name as in the struct.
    pub name: &'static str,
    /// Byte offset from the start of the record (the header is at 0).
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Rust type, e.g. `u32` or `[u8; 16]`; integers are little-endian.
    pub kind: &'static str,
    /// The first line of the field's documentation.
    pub doc: &'static str,
}

/// An event struct: a [`Header`](crate::header::Header) followed by a payload.
pub trait Event: bytemuck::Pod {
    /// The number in [`Header::kind`](crate::header::Header::kind); never reused.
    const KIND: crate::catalog::Kind;
    /// All fields in memory order, without gaps.
    const FIELDS: &'static [Field];
}

/// Defines an event struct with its field table. Implicit padding does not compile
/// (`bytemuck::Pod` refuses it), and the total size is asserted to the stated number of bytes.
#[macro_export]
macro_rules! event {
    (
        $(#[$meta:meta])*
        $name:ident = $kind:ident, $size:literal bytes {
            $( #[doc = $doc:literal] $(#[doc = $more:literal])* $field:ident : $ty:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            /// Time, CPU, thread and probe.
            pub header: $crate::header::Header,
            $( #[doc = $doc] $(#[doc = $more])* pub $field: $ty, )*
        }

        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        const _: () = assert!(core::mem::size_of::<$name>() % 8 == 0);

        impl $crate::layout::Event for $name {
            const KIND: $crate::catalog::Kind = $crate::catalog::Kind::$kind;
            const FIELDS: &'static [$crate::layout::Field] = &[
                $crate::layout::Field { name: "time_ns", offset: 0, size: 8, kind: "u64", doc: "CLOCK_MONOTONIC, ns" },
                $crate::layout::Field { name: "tid", offset: 8, size: 4, kind: "u32", doc: "thread that ran when the probe fired" },
                $crate::layout::Field { name: "cpu", offset: 12, size: 2, kind: "u16", doc: "processor" },
                $crate::layout::Field { name: "kind", offset: 14, size: 1, kind: "u8", doc: "event kind" },
                $crate::layout::Field { name: "probe", offset: 15, size: 1, kind: "u8", doc: "probe number" },
                $( $crate::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: core::mem::size_of::<$ty>(),
                    kind: stringify!($ty),
                    doc: $doc,
                }, )*
            ];
        }
    };
}
