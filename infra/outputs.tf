output "request_topic" {
  description = "Topic to which requests are published."
  value       = google_pubsub_topic.this["requests"].id
}

output "request_bucket" {
  description = "Bucket to which request files are uploaded."
  value       = "gs://${google_storage_bucket.this["requests"].name}"
}

output "products" {
  description = "Prefix below which requests may write their output."
  value       = "gs://${google_storage_bucket.this["products"].name}"
}

output "status_url" {
  description = "URL of the list of runs, for members of `viewers`."
  value       = "${google_cloud_run_v2_service.function["status"].uri}/runs"
}

output "registry" {
  description = "Registry to which the images are pushed."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "environment" {
  description = "Environment variables with which `scenebeam launch` uses this deployment."
  value       = local.environment
}
