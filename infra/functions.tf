locals {
  functions = {
    launch = { memory = "512Mi", instances = 5 }
    report = { memory = "512Mi", instances = 3 }
    status = { memory = "512Mi", instances = 3 }
  }
  accounts_of_catalogs = { for name, secret in var.secrets : name => "secret:projects/${var.project}/secrets/${secret}/versions/latest" }
  budget = var.series.max_monthly_cost == null ? {} : {
    SCENEBEAM_MAX_MONTHLY_COST = tostring(var.series.max_monthly_cost)
  }
  environment = merge(local.budget, {
    SCENEBEAM_STATE                  = "gs://${local.buckets.state}"
    SCENEBEAM_OUTPUTS                = "gs://${local.buckets.products}"
    SCENEBEAM_REQUESTS               = "gs://${local.buckets.requests}"
    SCENEBEAM_CATALOGS               = join(",", var.catalogs)
    SCENEBEAM_INPUTS                 = join(",", var.inputs)
    SCENEBEAM_MAX_SCENES             = tostring(var.max_scenes)
    SCENEBEAM_MAX_BYTES              = var.max_bytes
    SCENEBEAM_MAX_WORKERS            = tostring(var.max_workers)
    SCENEBEAM_MAX_RUNS               = tostring(var.series.max_runs)
    SCENEBEAM_DEBOUNCE_SECONDS       = tostring(60 * var.series.wait_minutes)
    SCENEBEAM_CHECK_SECONDS          = tostring(3600 * var.series.check_hours)
    SCENEBEAM_STALE_DAYS             = tostring(var.series.stale_days)
    SCENEBEAM_ACCOUNTS               = jsonencode(local.accounts_of_catalogs)
    SCENEBEAM_STATUS_TOPIC           = "projects/${var.project}/topics/${var.name}-status"
    SCENEBEAM_PROGRESS_TOPIC         = "projects/${var.project}/topics/${var.name}-progress"
    SCENEBEAM_DEAD_LETTER_TOPIC      = "projects/${var.project}/topics/${var.name}-dead"
    SCENEBEAM_PROJECT                = var.project
    SCENEBEAM_REGION                 = var.region
    SCENEBEAM_TEMPLATE               = local.template
    SCENEBEAM_IMAGE                  = var.worker_image
    SCENEBEAM_TEMP_LOCATION          = "gs://${local.buckets.state}/tmp"
    SCENEBEAM_WORKER_SERVICE_ACCOUNT = google_service_account.this["worker"].email
    SCENEBEAM_SUBNETWORK             = var.subnetwork == null ? "" : var.subnetwork
    SCENEBEAM_MACHINE_TYPE           = var.machine_type
  })
}

resource "google_cloud_run_v2_service" "function" {
  for_each = local.functions

  name                = "${var.name}-${each.key}"
  location            = var.region
  labels              = local.labels
  deletion_protection = false
  # `launch` and `report` accept internal traffic only, which includes Pub/Sub and Eventarc. Viewers
  # reach `status` with their own account, for example through `gcloud run services proxy`.
  ingress = each.key == "status" ? "INGRESS_TRAFFIC_ALL" : "INGRESS_TRAFFIC_INTERNAL_ONLY"

  template {
    service_account                  = google_service_account.this[each.key].email
    timeout                          = "120s"
    max_instance_request_concurrency = 20

    scaling {
      min_instance_count = 0
      max_instance_count = each.value.instances
    }

    containers {
      image = var.functions_image

      resources {
        limits            = { cpu = "1", memory = each.value.memory }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(local.environment, { FUNCTION_TARGET = each.key })
        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }

  depends_on = [google_project_service.used]
}

resource "google_cloud_run_v2_service_iam_member" "events" {
  for_each = toset(["launch", "report"])
  name     = google_cloud_run_v2_service.function[each.value].name
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.this["events"].member
}

resource "google_cloud_run_v2_service_iam_member" "viewers" {
  for_each = toset(var.viewers)
  name     = google_cloud_run_v2_service.function["status"].name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}

# A new file in the requests bucket starts a run.
resource "google_eventarc_trigger" "request_file" {
  name            = "${var.name}-request-file"
  location        = var.region
  service_account = google_service_account.this["events"].email
  labels          = local.labels

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.finalized"
  }
  matching_criteria {
    attribute = "bucket"
    value     = google_storage_bucket.this["requests"].name
  }
  destination {
    cloud_run_service {
      service = google_cloud_run_v2_service.function["launch"].name
      region  = var.region
    }
  }
}

# When a Dataflow job changes its state, `report` updates the run at once.
resource "google_eventarc_trigger" "job_state" {
  name            = "${var.name}-job-state"
  location        = var.region
  service_account = google_service_account.this["events"].email
  labels          = local.labels

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.dataflow.job.v1beta3.statusChanged"
  }
  event_data_content_type = "application/json"
  destination {
    cloud_run_service {
      service = google_cloud_run_v2_service.function["report"].name
      region  = var.region
    }
  }
}

# Cloud Storage publishes object events through Pub/Sub.
data "google_storage_project_service_account" "this" {}

resource "google_project_iam_member" "storage_events" {
  project = var.project
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${data.google_storage_project_service_account.this.email_address}"
}
