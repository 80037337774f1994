//! What folders become; the same constructors as in `pgfleet`.

type Files = &'static [(&'static str, &'static str)];

#[derive(Debug, PartialEq)]
pub(crate) struct Folder {
    pub(crate) path: &'static str,
    pub(crate) layout: &'static str,
    pub(crate) files: Files,
}

impl Folder {
    pub(crate) const fn new(path: &'static str, layout: &'static str, files: Files) -> Self {
        Self { path, layout, files }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Seeds {
    pub(crate) path: &'static str,
    pub(crate) files: Files,
}

impl Seeds {
    pub(crate) const fn new(path: &'static str, files: Files) -> Self {
        Self { path, files }
    }
}
