# Three buckets, because different accounts write to them: users upload requests, functions and jobs
# keep their state, and workers write products.
resource "google_storage_bucket" "this" {
  #checkov:skip=CKV_GCP_62:audit logs record access if the project enables them, and usage logs need another paid bucket
  for_each = local.buckets

  name                        = each.value
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = local.labels

  versioning {
    enabled = each.key != "products" # products can be remade from their request
  }

  soft_delete_policy {
    retention_duration_seconds = 0 # otherwise Dataflow's temporary files cost storage for another week
  }

  dynamic "lifecycle_rule" {
    for_each = each.key == "state" ? {
      "tmp/"      = var.retention_days.temporary
      "runs/"     = var.retention_days.state
      "rejected/" = var.retention_days.state
    } : {}
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        matches_prefix = [lifecycle_rule.key]
      }
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  depends_on = [google_project_service.used]
}

# The file that `gcloud dataflow flex-template build` would write: the image and its parameters.
resource "google_storage_bucket_object" "template" {
  bucket       = google_storage_bucket.this["state"].name
  name         = "templates/scenebeam.json"
  content_type = "application/json"
  content = jsonencode({
    image    = var.worker_image
    sdkInfo  = { language = "PYTHON" }
    metadata = jsondecode(file("${path.module}/../docker/metadata.json"))
  })
}
