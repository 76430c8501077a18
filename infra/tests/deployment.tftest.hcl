mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project         = "my-project"
  worker_image    = "europe-west1-docker.pkg.dev/my-project/scenebeam/worker:1.0.0"
  functions_image = "europe-west1-docker.pkg.dev/my-project/scenebeam/functions:1.0.0"
}

run "defaults" {
  command = plan

  assert {
    condition     = alltrue([for bucket in google_storage_bucket.this : bucket.uniform_bucket_level_access && bucket.public_access_prevention == "enforced"])
    error_message = "A bucket is open."
  }
  assert {
    condition     = alltrue([for subscription in google_pubsub_subscription.push : subscription.dead_letter_policy[0].max_delivery_attempts == 20])
    error_message = "A subscription has no dead letters."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.viewers) == 0
    error_message = "Somebody may look at runs whom nobody has named."
  }
  assert {
    condition     = alltrue([for role in google_project_iam_member.this : !contains(["roles/editor", "roles/owner", "roles/storage.admin"], role.role)])
    error_message = "An account may do too much."
  }
  assert {
    condition     = google_cloud_run_v2_service.function["launch"].ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    error_message = "Anybody can reach launch."
  }
  assert {
    condition     = jsondecode(google_storage_bucket_object.template.content).image == var.worker_image
    error_message = "The template launches another image."
  }
}

run "two_deployments_share_nothing" {
  command = plan
  variables {
    name = "second"
  }
  assert {
    condition     = google_storage_bucket.this["state"].name == "my-project-second-state" && google_pubsub_topic.this["requests"].name == "second-requests"
    error_message = "A name of the other deployment."
  }
}

run "latest_is_no_version" {
  command = plan
  variables {
    worker_image = "europe-west1-docker.pkg.dev/my-project/scenebeam/worker:latest"
  }
  expect_failures = [var.worker_image]
}

run "not_for_everybody" {
  command = plan
  variables {
    viewers = ["allUsers"]
  }
  expect_failures = [var.viewers]
}

run "names_are_checked" {
  command = plan
  variables {
    project      = "My Project"
    region       = "europe"
    name         = "a"
    max_bytes    = "much"
    machine_type = "custom-2-4096"
  }
  expect_failures = [var.project, var.region, var.name, var.max_bytes, var.machine_type]
}
