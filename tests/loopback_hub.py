"""A Hub on loopback that speaks the protocol of huggingface_hub's client: models and Spaces, commits, LFS, collections.

    python -m tests.loopback_hub PORT

State is in memory. Tokens: `hf_write` may do all, `hf_read` may read. Tests steer it by /_/: POST /_/fault with
{"where": a regular expression on "METHOD path", "status": ..., "times": ..., "cut": true, "retry_after": ...} makes the
next such calls fail; GET /_/log tells what was asked for.
"""

import base64
import hashlib
import json
import re
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

app = FastAPI()
repos: dict[tuple[str, str], dict] = {}  # (type, id) -> {"private", "branches": {name: [(sha, {path: bytes})]}, ...}
objects: dict[str, bytes] = {}  # LFS, by SHA-256
collections: dict[str, dict] = {}
faults: list[dict] = []
log: list[str] = []
RIGHTS = {"Bearer hf_write": "write", "Bearer hf_read": "read"}
LFS_FROM = 10_000  # bytes


def refused(status: int, code: str = "", message: str = "", **headers) -> JSONResponse:
    headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}
    return JSONResponse({"error": message or code}, status, {k: v for k, v in headers.items() if v})


@app.middleware("http")
async def steered(request: Request, call_next):
    line = f"{request.method} {request.url.path}"
    if not request.url.path.startswith("/_/"):
        log.append(line)
        for fault in faults:
            if fault["times"] > 0 and re.search(fault["where"], line):
                fault["times"] -= 1
                if fault.get("cut"):
                    request.scope["cut"]()
                after = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
                return refused(fault.get("status", 500), "", "the Hub is not well", **after)
    return await call_next(request)


@app.post("/_/fault")
async def fault(request: Request):
    faults[:] = [{"times": 1, **f} for f in await request.json()]


@app.get("/_/log")
async def said():
    taken = list(log)
    log.clear()
    return taken


@app.get("/_/repos")
async def held():
    return {
        f"{kind}/{name}": {
            "private": repo["private"], "variables": repo["variables"],
            "branches": {b: [len(c), sorted(c[-1][1])] for b, c in repo["branches"].items()},
        }
        for (kind, name), repo in repos.items()
    }  # fmt: skip


def right(request: Request) -> str | None:
    return RIGHTS.get(request.headers.get("authorization", ""))


def found(request: Request, kind: str, name: str):
    repo = repos.get((kind, name))
    if repo is None or (repo["private"] and not right(request)):
        return None
    return repo


def hashed(files: dict[str, bytes], before: str = "") -> str:
    content = before + "".join(f"{p}{hashlib.sha1(b).hexdigest()}" for p, b in sorted(files.items()))
    return hashlib.sha1(content.encode()).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def at(repo: dict, revision: str):
    """(sha, files) of a branch or a commit."""
    if revision in repo["branches"]:
        return repo["branches"][revision][-1]
    return next((c for commits in repo["branches"].values() for c in commits if c[0] == revision), None)


@app.get("/api/whoami-v2")
async def whoami(request: Request):
    if not right(request):
        return refused(401, "", "Invalid user token.")
    return {"name": "user", "type": "user", "orgs": [], "auth": {"type": "access_token"}}


@app.post("/api/repos/create")
async def create(request: Request):
    body = await request.json()
    if right(request) != "write":
        return refused(403, "", "this token has no write access")
    name, kind = f"{body.get('organization') or 'user'}/{body['name']}", body.get("type") or "model"
    url = f"{request.base_url}{'' if kind == 'model' else kind + 's/'}{name}"
    if (kind, name) in repos:
        return JSONResponse({"url": url, "error": "exists"}, 409)
    first = {".gitattributes": b"*.safetensors filter=lfs\n"}
    private = body.get("private") or body.get("visibility") == "private"
    repos[kind, name] = {
        "private": bool(private), "sdk": body.get("sdk"), "variables": {}, "branches": {"main": [(hashed(first), first)]},
    }  # fmt: skip
    return {"url": url, "name": name, "id": name}


@app.post("/api/validate-yaml")
async def validate(request: Request):
    return {"errors": [], "warnings": []}


@app.post("/api/{kind}s/{user}/{name}/preupload/{revision:path}")
async def preupload(kind: str, user: str, name: str, revision: str, request: Request):
    repo = found(request, kind, f"{user}/{name}")
    if repo is None:
        return refused(404, "RepoNotFound")
    if right(request) != "write":
        return refused(403, "", "this token has no write access")
    place = at(repo, revision)
    if place is None:
        return refused(404, "RevisionNotFound")
    answers = []
    for file in (await request.json())["files"]:
        lfs, old = file["size"] >= LFS_FROM, place[1].get(file["path"])
        oid = None if old is None else hashlib.sha256(old).hexdigest() if lfs else blob(old)
        mode = "lfs" if lfs else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": answers}


@app.post("/{path:path}.git/info/lfs/objects/batch")
async def lfs_batch(path: str, request: Request):
    answers = []
    for item in (await request.json())["objects"]:
        oid, actions = item["oid"], {}
        if oid not in objects:
            actions = {
                "upload": {"href": f"{request.base_url}lfs/{oid}"},
                "verify": {"href": f"{request.base_url}lfs/verify"},
            }
        answers.append({**item, "authenticated": True, **({"actions": actions} if actions else {})})
    return JSONResponse({"transfer": "basic", "objects": answers}, media_type="application/vnd.git-lfs+json")


@app.put("/lfs/{oid}")
async def lfs_put(oid: str, request: Request):
    content = await request.body()
    if hashlib.sha256(content).hexdigest() != oid:
        return refused(400, "", "another content")
    objects[oid] = content


@app.post("/lfs/verify")
async def lfs_verify(request: Request):
    return {} if (await request.json())["oid"] in objects else refused(404)


@app.post("/api/{kind}s/{user}/{name}/commit/{revision:path}")
async def commit(kind: str, user: str, name: str, revision: str, request: Request):
    if right(request) != "write":
        return refused(403, "", "this token has no write access")
    commits = repos[kind, f"{user}/{name}"]["branches"][revision]
    files = dict(commits[-1][1])
    for line in (await request.body()).splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = objects[value["oid"]]
        elif entry["key"] == "deletedFile":
            files.pop(value["path"], None)
    commits.append((hashed(files, commits[-1][0]), files))
    return {"commitUrl": f"{request.base_url}{user}/{name}/commit/{commits[-1][0]}", "commitOid": commits[-1][0]}


@app.post("/api/{kind}s/{user}/{name}/branch/{branch}")
async def create_branch(kind: str, user: str, name: str, branch: str, request: Request):
    branches = repos[kind, f"{user}/{name}"]["branches"]
    if branch in branches:
        return refused(409, "", "exists")
    branches[branch] = branches["main"][:]


@app.post("/api/spaces/{user}/{name}/variables")
async def variable(user: str, name: str, request: Request):
    body = await request.json()
    values = repos["space", f"{user}/{name}"]["variables"]
    values[body["key"]] = body["value"]
    return {key: {"value": value, "updatedAt": None} for key, value in values.items()}


@app.get("/api/spaces/{user}/{name}/variables")
async def variables(user: str, name: str, request: Request):
    values = repos["space", f"{user}/{name}"]["variables"]
    return {key: {"value": value, "updatedAt": None} for key, value in values.items()}


@app.post("/api/collections")
async def create_collection(request: Request):
    body = await request.json()
    slug = f"{body['namespace']}/genus-1"
    if slug in collections:
        return JSONResponse({"slug": slug, "error": "exists"}, 409)
    collections[slug] = {
        "slug": slug, "title": body["title"], "owner": {"name": body["namespace"], "type": "user"}, "items": [],
        "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "private": False, "theme": "blue", "upvotes": 0,
    }  # fmt: skip
    return collections[slug]


@app.get("/api/collections/{user}/{slug}")
async def get_collection(user: str, slug: str):
    return collections[f"{user}/{slug}"]


@app.post("/api/collections/{user}/{slug}/items")
async def add_item(user: str, slug: str, request: Request):
    held, item = collections[f"{user}/{slug}"], (await request.json())["item"]
    if any(i["id"] == item["id"] and i["type"] == item["type"] for i in held["items"]):
        return refused(409, "", "exists")
    held["items"].append({**item, "_id": f"{len(held['items']):024x}", "position": len(held["items"])})
    return held


@app.get("/api/{kind}s/{user}/{name}/tree/{revision}")
@app.get("/api/{kind}s/{user}/{name}/tree/{revision}/{path:path}")
async def tree(kind: str, user: str, name: str, revision: str, request: Request, path: str = ""):
    repo = found(request, kind, f"{user}/{name}")
    place = repo and at(repo, revision)
    if not place:
        return refused(404, "RevisionNotFound" if repo else "RepoNotFound")
    under = path + "/" if path else ""
    files = {p: b for p, b in place[1].items() if p.startswith(under)}
    return [{"type": "file", "path": p, "size": len(b), "oid": blob(b)} for p, b in sorted(files.items())]


@app.get("/api/{kind}s/{user}/{name}")
@app.get("/api/{kind}s/{user}/{name}/revision/{revision:path}")
async def info(kind: str, user: str, name: str, request: Request, revision: str = "main"):
    repo = found(request, kind, f"{user}/{name}")
    if repo is None:
        return refused(401 if not right(request) else 404, "RepoNotFound", "Repository not found")
    place = at(repo, revision)
    if place is None:
        return refused(404, "RevisionNotFound")
    siblings = [{"rfilename": p, "size": len(b)} for p, b in sorted(place[1].items())]
    return {"id": f"{user}/{name}", "sha": place[0], "siblings": siblings, "private": repo["private"], "tags": []}


@app.api_route("/{kind}s/{user}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
async def resolve_typed(kind: str, user: str, name: str, revision: str, path: str, request: Request):
    return serve(kind, f"{user}/{name}", revision, path, request)


@app.api_route("/{user}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
async def resolve(user: str, name: str, revision: str, path: str, request: Request):
    return serve("model", f"{user}/{name}", revision, path, request)


def serve(kind: str, name: str, revision: str, path: str, request: Request) -> Response:
    repo = found(request, kind, name)
    if repo is None:
        return refused(401 if not right(request) else 404, "RepoNotFound", "Repository not found")
    place = at(repo, revision)
    if place is None:
        return refused(404, "RevisionNotFound")
    sha, files = place
    if path not in files:
        return refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
    content = files[path]
    headers = {"X-Repo-Commit": sha, "ETag": f'"{blob(content)}"', "Content-Length": str(len(content))}
    if len(content) >= LFS_FROM:
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(content))
    return Response(b"" if request.method == "HEAD" else content, headers=headers)


class Cutting:
    """Serves the app; a call with a fault that says `cut` loses its connection instead of an answer."""

    async def __call__(self, scope, receive, send):
        def cut():
            send.__self__.transport.abort()  # uvicorn's own end of the connection
            raise ConnectionError("cut by the test")

        if scope["type"] == "http":
            scope["cut"] = cut
        await app(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(Cutting(), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
