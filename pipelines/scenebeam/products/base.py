"""Product: what every product declares, and what it may override."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal

from shapely.geometry import MultiPolygon
from typing_extensions import TypeVar

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.queries import SearchQuery, queries_for
from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import File
from scenebeam.errors import RequestError
from scenebeam.imaging.cube import CubeImage, band_of, read_gridded
from scenebeam.imaging.gridded import GriddedRecipe, make_gridded
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.shards import Window
from scenebeam.metadata.item_tables import ReportFiles, report_items
from scenebeam.metadata.stac_items import Item
from scenebeam.raster.validity import Array
from scenebeam.request import RunRequest
from scenebeam.request.product import ProductRequest
from scenebeam.storage import Store
from scenebeam.tasks import CubeBand, Outcome, Task
from scenebeam.transfer.retry import Budget


@dataclass(frozen=True)
class SearchScope:
    """Where and when a request needs scenes."""

    area: MultiPolygon | None
    """In degrees; None: unbounded."""
    queries: Sequence[SearchQuery]
    """What the catalog is searched for."""
    hint: str = "Widen the area, the dates or the filters"
    """What to try if no scene is left."""
    measure: bool = field(default=False, kw_only=True)
    """Read headers and file sizes for a good estimate; a run does without."""


@dataclass(frozen=True)
class Planned:
    """The tasks of a product, and tables that are written before the first task is made."""

    tasks: Sequence[Task]
    tables: Mapping[str, File] = field(default_factory=dict)


@dataclass(frozen=True)
class Demo:
    """How `scenebeam demo` shows a product, on a data set of the sandbox."""

    product: Mapping[str, Any]
    """The section `product` of its request. Paths are relative to the folder of the data set."""
    dataset: str = "scenes"
    """Name of a data set in `sandbox.demo`: `scenes`, `series`, `fields`, …"""
    images: str = "*/*/*.tif"
    """Pattern of the images to list, relative to the output."""


@dataclass(frozen=True)
class PageFacts:
    """Which properties of a product's items its report page counts and plots."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """Property → title: products are counted by its values."""
    measures: Mapping[str, tuple[str, float, str]] = field(default_factory=dict)
    """Property → title, factor and unit: its numbers are plotted."""
    class_property: str = ""
    """Property with the class of an item: shown even if all have the same."""
    color_property: str = ""
    """Property with the color of that class."""
    scene_property: str = ""
    """Property with the id of the scene that an item is of, where each has exactly one."""
    noun: str = "products"
    """What its products are called, in the plural."""
    parts: tuple[str, str] | None = None
    """Property that marks items of parts of products, and what these are called: the images of
    chips."""
    pictures: Literal["rasters", "indices", "thumbnails"] = "thumbnails"
    """What its pictures are: drawn of the products' rasters, as indices or otherwise, or the
    thumbnails that the products publish.
    """


def scope_of_area(request: RunRequest) -> SearchScope:
    """The search scope of the request's own area and dates."""
    area = area_geometry(request.area) if request.area is not None else None
    return SearchScope(area, queries_for(request, area))


class PlanView(ABC):
    """Something more that `scenebeam plan` can show of a product, by an option of its own."""

    help: ClassVar[str]
    """Help text of the option."""

    @abstractmethod
    def compute(
        self,
        request: RunRequest[Any],
        selection: Selection,
        search_scope: Any,
        tasks: Sequence[Any],
    ) -> dict[str, Any]:
        """Compute the view; this may read pixels.

        Args:
            request: The validated request.
            selection: The acquisitions that were selected.
            search_scope: The search scope of the request.
            tasks: The planned tasks.

        Returns:
            The view as JSON.
        """

    @abstractmethod
    def describe(self, document: Mapping[str, Any]) -> str:
        """The same figures as text."""


RequestT = TypeVar("RequestT", bound=ProductRequest)
TaskT = TypeVar("TaskT", bound=Task)
GriddedTaskT = TypeVar("GriddedTaskT", bound=GriddedTask)
ScopeT = TypeVar("ScopeT", bound=SearchScope, default=SearchScope)


class Product(ABC, Generic[RequestT, TaskT, ScopeT]):
    """One kind of product. Its package holds the request model, the task model and this class."""

    task: ClassVar[type[Task]]
    """Model of its tasks, as which a frozen plan is read."""
    demo: ClassVar[Demo]
    io_bound: ClassVar[bool] = False
    """Tasks wait for the network rather than compute, so more of them than cores run at once."""
    page: ClassVar[PageFacts] = PageFacts()
    plan_views: ClassVar[Mapping[str, PlanView]] = {}
    """Option of `scenebeam plan` → view."""

    @abstractmethod
    def search_scope(self, request: RunRequest[RequestT]) -> ScopeT:
        """Where and when to search for scenes; `scope_of_area` is the usual answer.

        Raises:
            RequestError: What the request names cannot be read, or leaves nothing to search for.
        """

    @abstractmethod
    def plan(
        self, selection: Selection, request: RunRequest[RequestT], search_scope: ScopeT
    ) -> Planned:
        """Plan the tasks, on the driver and without reading pixels.

        Args:
            selection: The acquisitions that were selected.
            request: The validated request.
            search_scope: What `search_scope` has returned for it.

        Raises:
            RequestError: Nothing can be planned; the message says what to change.
        """

    @abstractmethod
    def make(self, task: TaskT, store: Store, budget: Budget) -> Outcome:
        """Make the outputs of one task, on a worker: the only step that touches pixels.

        Idempotent: outputs that exist are kept, and outputs are published atomically.

        Args:
            task: The task.
            store: The output.
            budget: What the task may spend on retries; it counts what is read.

        Returns:
            The outcome: done, skipped or failed for a reason that the product expects.

        Raises:
            ReadError: A source cannot be read; permanent or not, as the error says.
            StorageError: An output cannot be published.
        """

    def cube_images(self, task: TaskT) -> Sequence[CubeImage]:
        """Describe the images of a task as times of a cube.

        Raises:
            RequestError: They are no cube.
        """
        raise RequestError(
            "product.kind: only mosaics, composites, indices and stacks are cubes; run the "
            "request, and open its output"
        )

    def read_window(self, task: TaskT, band: CubeBand, window: Window, budget: Budget) -> Array:
        """Compute a window of one band of a cube, without writing it.

        Args:
            task: The task, whose images are of a cube.
            band: The band.
            window: Rows and columns of the whole grid.
            budget: Retries and waiting time.

        Returns:
            Array of the window's shape; a masked array if the band has no nodata value.

        Raises:
            ReadError: A file cannot be read.
        """
        raise NotImplementedError

    def caution(self, request: RunRequest[RequestT]) -> str:
        """Say what people should know before they use the products; empty if nothing."""
        return ""

    def tables(
        self, tasks: Sequence[TaskT], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
    ) -> Mapping[str, File]:
        """Summarize a run as tables, by file name.

        Args:
            tasks: All tasks of the plan.
            outcomes: Outcomes of this run, by task id.
            items: STAC items of finished tasks, by key in the store.
        """
        return {}

    def report(
        self,
        request: RunRequest[RequestT],
        tasks: Sequence[TaskT],
        done: set[str],
        outcomes: Mapping[str, Outcome],
        store: Store,
    ) -> ReportFiles:
        """Describe the products: by default a STAC collection, `items.parquet`, and `tables`.

        Args:
            request: The validated request.
            tasks: All tasks of the plan.
            done: Ids of finished tasks.
            outcomes: Outcomes of this run, by task id.
            store: Where the products are.
        """
        return report_items(self.tables, request, tasks, done, outcomes, store)

    def reusable_outputs(self, before: Sequence[TaskT], after: Sequence[TaskT]) -> set[str]:
        """Keys of outputs of one plan that are valid for the plan that replaces it.

        By default those of tasks that are equal in both.
        """
        following = {task.id: task for task in after}
        keys: set[str] = set()
        for task in before:
            if task == following.get(task.id):
                keys.update(task.possible_outputs)
        return keys


class GriddedProduct(Product[RequestT, GriddedTaskT], GriddedRecipe[GriddedTaskT]):
    """A product of COGs on one grid: it defines what is computed, row chunk by row chunk."""

    def search_scope(self, request: RunRequest[RequestT]) -> SearchScope:
        return scope_of_area(request)

    def cube_images(self, task: GriddedTaskT) -> Sequence[CubeImage]:
        bands = [band_of(output) for output in self.outputs(task, {})]
        by_name = {band.name: band for band in bands}
        return [CubeImage(task.name, task.when, task.grid, by_name, task.properties)]

    def read_window(
        self, task: GriddedTaskT, band: CubeBand, window: Window, budget: Budget
    ) -> Array:
        return read_gridded(task, self, band, window, budget)

    def make(self, task: GriddedTaskT, store: Store, budget: Budget) -> Outcome:
        """Make the COGs of one task, or one shard of them: see `make_gridded`."""
        return make_gridded(task, self, store, budget)
