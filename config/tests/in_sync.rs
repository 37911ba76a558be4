//! The generated files in the repository are what the types say.

use std::fs;

#[test]
fn generated_files_are_up_to_date() {
    if let Err(e) = drover_config::check(&drover_config::repository()) {
        panic!("{e:#}");
    }
}

#[test]
fn stale_missing_and_leftover_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    for folder in drover_config::FOLDERS {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    drover_config::write(root.path()).unwrap();
    drover_config::check(root.path()).unwrap();

    let folder = root.path().join("config/crd");
    let kept = folder.join("kustomization.yaml");
    fs::write(&kept, "resources: []\n").unwrap();
    let hosts = fs::read_to_string(folder.join("hosts.drover.dev.yaml")).unwrap();
    fs::write(folder.join("flocks.drover.dev.yaml"), &hosts).unwrap();
    fs::write(folder.join("rollouts.drover.dev.yaml"), hosts.replace("hosts", "rollouts")).unwrap();
    fs::remove_file(root.path().join("helm/drover/crds/hosts.drover.dev.yaml")).unwrap();

    let reference = root.path().join("docs/resources.md");
    let text = fs::read_to_string(&reference).unwrap();
    fs::write(&reference, text.replacen("### file\n", "### flock\n", 1)).unwrap();

    let error = drover_config::check(root.path()).unwrap_err().to_string();
    for wanted in [
        "config/crd/flocks.drover.dev.yaml",
        "config/crd/rollouts.drover.dev.yaml",
        "helm/drover/crds/hosts.drover.dev.yaml",
        "docs/resources.md",
        drover_config::COMMAND,
    ] {
        assert!(error.contains(wanted), "{wanted} is not in: {error}");
    }
    assert_eq!(error.matches(".yaml").count(), 3, "{error}");

    drover_config::write(root.path()).unwrap();
    drover_config::check(root.path()).unwrap();
    assert!(kept.exists());
}
