"""Every part of the image: what `devbox versions --json` and `devbox licences` list. Nothing is asked but the image's own files.

A part has a name, version, source, licence and digest; `of` is the component that it came with, `texts` are the files with its
licence. A package without a file of its own has the common text of its licence.
"""

import glob
import json
import os
import re

FACTS = "/usr/share/devbox/components"
PACKAGES = "/usr/share/devbox/debian-packages.tsv"
IMAGE = "/usr/share/devbox/image.json"
# Texts that the build has collected, by component or by licence; Debian has those of the most common licences.
TEXTS = ("/usr/share/devbox/licences", "/usr/share/common-licenses")
TEXT = re.compile("(un)?licen[cs]e|copying|copyright", re.IGNORECASE)
# Words that authors write for the names that the texts have.
SPELLED = {"Apache": "Apache-2.0"}
# Folders of npm packages and of Python's, with the component that they came with.
TREES = (("npm", "/usr/local/lib/node_modules"), ("omos", "/opt/omos/node_modules"), ("pi", "/opt/pi/node_modules"))
ENVIRONMENTS = (("mempalace", "/opt/mempalace/lib/python3*/site-packages"),)


def everything(root=""):
    """All parts: components by their names, then what else came with them, then Debian's packages."""
    found = [*components(root), *own(root)]
    known = {part["source"] for part in found}
    for part in [*npm(root), *python(root), *debian(root)]:
        if part["source"] not in known:
            known.add(part["source"])
            found.append(part)
        else:
            # The same package, with its text: a component is recorded without one, and a tree may hold a package twice.
            twin = next(it for it in found if it["source"] == part["source"])
            twin["texts"] = twin["texts"] or part["texts"]
    for part in found:
        part["texts"] = part["texts"] or common(root, part["licence"])
    return found


def facts(root=""):
    """What the build has recorded of each component."""
    found = []
    for path in sorted(glob.glob(f"{root}{FACTS}/*.json")):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    return found


def components(root=""):
    return [{**fact, "of": fact["name"], "texts": texts(root, fact["name"])} for fact in facts(root)]


def own(root=""):
    """The files of this project; their version is the key of the base, which the image of a variant knows."""
    try:
        with open(f"{root}{IMAGE}", encoding="utf-8") as file:
            key = json.load(file)["base_key"]
    except (OSError, ValueError, KeyError):
        return []
    name = "opencode-devbox"
    return [part(name, key, f"{name}@{key}", "MIT", digest(f"{root}{IMAGE}"), name, texts(root, name))]


def part(name, version, source, licence, checksum, of, files):
    return {"name": name, "version": version, "source": source, "licence": licence, "digest": checksum, "of": of, "texts": files}


def npm(root=""):
    for of, top in TREES:
        for folder in sorted(packages_below(f"{root}{top}")):
            manifest = f"{folder}/package.json"
            with open(manifest, encoding="utf-8") as file:
                known = json.load(file)
            name, version = known["name"], known["version"]
            yield part(name, version, f"npm:{name}@{version}", npm_licence(known), digest(manifest), of, files_of(folder))


def packages_below(modules):
    """The folders of npm packages in a folder node_modules, and in those of the packages themselves."""
    for folder in glob.glob(f"{modules}/*") + glob.glob(f"{modules}/@*/*"):
        if os.path.isfile(f"{folder}/package.json"):
            yield folder
            yield from packages_below(f"{folder}/node_modules")


def npm_licence(known):
    """The licence in a package.json; very old ones have a list of objects."""
    licence = known.get("license") or known.get("licenses")
    several = licence if isinstance(licence, list) else [licence]
    names = [it.get("type") if isinstance(it, dict) else it for it in several]
    return " AND ".join(name for name in names if name) or None


def python(root=""):
    # Only here and below, since every start would pay for them.
    import email

    for of, pattern in ENVIRONMENTS:
        for info in sorted(glob.glob(f"{root}{pattern}/*.dist-info")):
            with open(f"{info}/METADATA", encoding="utf-8") as file:
                known = email.message_from_file(file)
            # One spelling for all (PEP 503).
            name, version = re.sub("[-_.]+", "-", known["Name"]).lower(), known["Version"]
            licence = python_licence(known)
            files = [*files_of(info), *files_of(f"{info}/licenses"), *files_of(f"{info}/license_files")]
            yield part(name, version, f"pypi:{name}=={version}", licence, digest(f"{info}/RECORD"), of, files)


def python_licence(known):
    """The licence in a METADATA: an expression, a field that some fill with the whole text, or a classifier."""
    licence = known["License-Expression"] or known["License"]
    if licence and "\n" not in licence:
        return licence
    names = [it.rpartition(" :: ")[2] for it in known.get_all("Classifier") or [] if it.startswith("License :: ")]
    return names[0] if names else None


def debian(root=""):
    try:
        with open(f"{root}{PACKAGES}", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except OSError:
        return
    for row in rows:
        name, version, architecture, checksum, _, licence = [*row, *[""] * (6 - len(row))]
        text = f"{root}/usr/share/doc/{name}/copyright"
        source = f"debian:{name}={version}:{architecture}"
        licence = licence or f"see /usr/share/doc/{name}/copyright"
        yield part(name, version, source, licence, checksum or None, "debian", [text] if os.path.isfile(text) else [])


def files_of(folder):
    """Files of a folder whose name says that they hold a licence."""
    return sorted(path for path in glob.glob(f"{glob.escape(folder)}/*") if TEXT.match(os.path.basename(path)) and os.path.isfile(path))


def texts(root, name):
    """The texts that the build has collected under a name: a file, or a folder of files."""
    path = f"{root}{TEXTS[0]}/{name}"
    return [path] if os.path.isfile(path) else sorted(glob.glob(f"{path}/*"))


def common(root, licence):
    """The common texts of the licences that an expression names."""
    found = []
    for name in re.findall("[A-Za-z0-9.+-]+", licence or ""):
        paths = [f"{root}{folder}/{SPELLED.get(name, name)}" for folder in TEXTS]
        found += [path for path in paths if os.path.isfile(path) and path not in found][:1]
    return found


def digest(path):
    import hashlib

    with open(path, "rb") as file:
        return "sha256:" + hashlib.sha256(file.read()).hexdigest()
