"""The words after numbers, in both scripts."""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """A word after a number."""

    counts_digit: bool  # also a single digit before it is a number: 三個 is 3個
    family: str  # units of one family make compounds: 三小時二十分
    symbol: str = ""  # the written form, where it is not the word itself


# What can be counted: a single digit before these is a number.
_COUNTED = {
    "": """
        個 个 位 名 人 隻 只 條 条 張 张 本 件 台 臺 輛 辆 部 杯 瓶 碗 包 盒 箱 顆 颗 粒 朵 棵 匹 架 艘 支 枝
        雙 双 套 份 組 组 句 項 项 種 种 層 层 級 级 屆 届 期 集 季 章 頁 页 題 题 班 排 列 座 棟 栋 戶 户 家
        間 间 槍 枪 次 場 场 局 隊 队 票 席 筆 笔 片 根 頭 头 把 道 首 篇 批 串 袋 桶 罐 桌 床 盞 盏 扇 枚 株
        束 幅 則 则 封 趟 圈 胎 格 課 课 卷 冊 册 歲 岁 倍 成 折 顆星 颗星 人份 人次 年次 個百分點 个百分点
        樣 样 款 趴 百分點 百分点 站 招 學分 学分
        天 週 周 度 攝氏度 摄氏度 級分 级分
        美元 美金 歐元 欧元 日圓 日元 日幣 日币 英鎊 英镑 港幣 港币 港元 人民幣 人民币 台幣 臺幣 台币 韓元 韩元
        坪 平方公尺 平方米 平方公里 平方公分 畝 亩 公頃 公顷 立方公尺 立方米
        公升 升 毫升 加侖 加仑 西西 卡 大卡 千卡 焦耳 瓦 千瓦 吉瓦 瓦時 瓦时 吉赫 度電 度电 伏特 伏 安培 赫茲 赫兹 百帕 帕
        分貝 分贝 像素 畫素
        處 处 起 例 劑 剂 針 针 通 堂 節 节 門 门 輪 轮 股 宗 檔 档 碼 码 遍 頓 顿 發 发 幀 帧 具 群 堆 疊 捆 滴 幕 截 架次 班次 車次 车次
        件次 場次 场次 籃板 篮板 助攻 抄截 搶斷 抢断 阻攻 蓋帽 盖帽 火鍋 火锅 失誤 失误 回合 打數 打数 打席 毫秒 微秒 奈秒 纳秒
        盤 盘 尊 幢 缸 壺 壶 鍋 锅 錠 锭 丸 爐 炉 窩 窝 柄 摞 團 团 畦 縷 缕 捲 帖 服 闋 阕 樁 桩 圍 围 安打 盜壘 盗垒 犯規 犯规 進球 进球 棒次
        微升 公釐 微克 牛頓 牛顿 馬力 马力 歐姆 欧姆 毫安 毫安時 毫安时 毫伏 毫瓦 英畝 英亩 公畝 公亩 流明 位元組 字節 字节 比特 品脫 品脱 立方英尺 立方英寸 平方英寸 平方尺
        湯匙 汤匙 茶匙 大匙 小匙 匙 勺 碟 盆 籃 篮 筐 盅 罈 瓮 甕 叢 丛 簇 挺 桿 杆 叠 對 对 尾 貼 贴 齣 行 副 版 球 晚 夜 關 关 注 單位 单位 療程 疗程
        時辰 时辰 星期 禮拜 礼拜 學期 学期 學年 学年 年頭 年头 小節 小节 類 类 席次 紅牌 红牌 黃牌 黄牌 打點 打点 保送 面金牌 面銀牌 面银牌 面銅牌 面铜牌 面獎牌 面奖牌
        路公車 路公车 路公交 路車 路车 頻道 频道 核 核心 線程 线程 執行緒 执行绪 汽缸 基點 基点 文錢 文钱 呎 公寸 丈 平方呎 平方吋 平米 平方 立方 瓦特 千瓦時 千瓦时 千瓦小時 千瓦小时
        瓩 卡路里 千焦 千帕 毫巴 毫莫耳 毫摩尔 莫耳 摩爾 摩尔 西弗 毫西弗 微西弗 皮秒 千赫 盧布 卢布 法郎 瑞士法郎 瑞郎 澳元 澳幣 澳币 加元 加幣 加币 紐幣 纽币 紐元 纽元
        新幣 新币 坡幣 坡币 泰銖 泰铢 越南盾 印尼盾 盧比 卢比 披索 比索 令吉 林吉特 馬幣 马币 韓幣 韩币 比特幣 比特币 澳門幣 澳门币
        平方毫米 平方厘米 平方分米 平方千米 平方英尺 平方英里 立方厘米 立方公分 立方毫米 立方分米 立方公里 立方千米
    """,
    "years": "年 個月 个月",
    "duration": "小時 小时 個小時 个小时 鐘頭 钟头 分鐘 分钟 分 秒 秒鐘 秒钟",
    "date": "日 號 号",
    "money": "元 圓 圆 塊 块 塊錢 块钱 分錢 分钱",
    "length": """
        公里 里路 里地 分米 公丈 華里 华里 公尺 公分 公厘 千米 米 厘米 毫米 微米 奈米 纳米 英里 英尺 英寸 英吋 尺 寸 吋 海里 光年
    """,
    "weight": "公斤 公克 公噸 公吨 噸 吨 斤 兩 两 台斤 市斤 錢 钱 磅 盎司 克拉",
    "address": "鄰 邻 巷 弄 樓 楼 室",
    "score": "勝 胜 敗 败 戰 战 捷",
    "rooms": "房 廳 厅 衛 卫",
    "toll": "死 傷 伤 亡",
}

# Words after numbers, before which a single digit stays: 十二月 is 12月, but 六月 stays.
_NAMED = "點 点 點鐘 点钟 月 年級 年级 年代 年制 世紀 世纪 字 步 口 面 段 下 回 國 国 星 所 代 次方 次函數 次函数 無鉛 无铅"
_NAMED_MONEY = "角 毛"  # 三塊五毛 is 3塊5毛, but 五毛 stays
_MEDALS = "金 銀 银 銅 铜"  # 六金三銀 is 6金3銀, but 六金 stays

# Written with a symbol; speeds are made of a distance and a time.
_WEIGHT_SYMBOLS = {"克": "g", "千克": "kg", "毫克": "mg"}
_DISTANCES = {"千米": "km", "公里": "km", "米": "m", "公尺": "m"}
_TIMES = {"小時": "h", "小时": "h", "秒": "s"}


def _units() -> dict[str, Unit]:
    units = {word: Unit(True, family) for family, words in _COUNTED.items() for word in words.split()}
    units.update({word: Unit(False, "") for word in _NAMED.split()})
    units.update({word: Unit(False, "money") for word in _NAMED_MONEY.split()})
    units.update({word: Unit(False, "medals") for word in _MEDALS.split()})
    units.update({word: Unit(True, "weight", symbol) for word, symbol in _WEIGHT_SYMBOLS.items()})
    for distance, length in _DISTANCES.items():
        for time, duration in _TIMES.items():
            units[f"{distance}每{time}"] = Unit(True, "", f"{length}/{duration}")
    return units


UNITS = _units()
