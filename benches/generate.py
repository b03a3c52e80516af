"""The smallest generator of the same resources that a script would be: `python3 generate.py PROJECTS BRANCHES FILE`."""

import sys

import yaml


def resources(projects: list[str], branches: list[str]) -> dict:
    limits = {
        "autoscaling_limit_min_cu": "${var.lakebase_min_cu}",
        "autoscaling_limit_max_cu": "${var.lakebase_max_cu}",
    }
    made: dict[str, dict] = {"postgres_projects": {}, "postgres_branches": {}, "postgres_endpoints": {}}
    for project in projects:
        key = project.replace("-", "_")
        path = f"${{resources.postgres_projects.lakebase_project_{key}.id}}"
        made["postgres_projects"][f"lakebase_project_{key}"] = {
            "project_id": project,
            "pg_version": "${var.lakebase_pg_version}",
            "default_endpoint_settings": dict(limits),
            "lifecycle": {"prevent_destroy": True},
        }
        for branch in branches:
            below = f"{key}_{branch.replace('-', '_')}"
            made["postgres_branches"][f"lakebase_branch_{below}"] = {
                "branch_id": branch,
                "parent": path,
                "source_branch": f"{path}/branches/production",
                "no_expiry": True,
            }
            made["postgres_endpoints"][f"lakebase_endpoint_{below}_primary"] = {
                "endpoint_id": "primary",
                "parent": f"${{resources.postgres_branches.lakebase_branch_{below}.id}}",
                "endpoint_type": "ENDPOINT_TYPE_READ_WRITE",
                **limits,
                "replace_existing": True,
            }
    return {"resources": made}


if __name__ == "__main__":
    document = resources(sys.argv[1].split(","), sys.argv[2].split(","))
    with open(sys.argv[3], "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
