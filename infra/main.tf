locals {
  services = toset([
    "artifactregistry.googleapis.com", "cloudscheduler.googleapis.com", "compute.googleapis.com",
    "dataflow.googleapis.com", "eventarc.googleapis.com", "logging.googleapis.com", "monitoring.googleapis.com",
    "pubsub.googleapis.com", "run.googleapis.com", "secretmanager.googleapis.com", "storage.googleapis.com",
  ])
  buckets = {
    requests = "${var.project}-${var.name}-requests"
    state    = "${var.project}-${var.name}-state"
    products = "${var.project}-${var.name}-products"
  }
  template = "gs://${local.buckets.state}/templates/scenebeam.json"
  labels   = { app = var.name }
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "used" {
  for_each           = local.services
  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google-managed keys suffice, because the images contain open-source software and no secrets
  location      = var.region
  repository_id = var.name
  description   = "Container images of scenebeam"
  format        = "DOCKER"
  labels        = local.labels

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.used]
}
