"""Ordinary sentences without numbers, in the languages of the synthesizers: to these the model must answer nothing.

A sentence is put together from an opening, a middle and an end, so that a few lines give thousands of them; single
words and fragments come too, since people also hesitate, greet and answer with one word.
"""

from __future__ import annotations

import random

from .texts import Text

ESPEAK_VOICES = {
    "English": "en-us",
    "Spanish": "es",
    "French": "fr-fr",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Portuguese": "pt-br",
    "German": "de",
    "Russian": "ru",
    "Korean": "ko",
}
# How often each language is drawn: those that the model writes need most practice in being refused.
SHARES = {
    "English": 8,
    "Chinese": 8,
    "Spanish": 1,
    "French": 1,
    "Hindi": 1,
    "Italian": 1,
    "Japanese": 1,
    "Portuguese": 1,
}
_ENGLISH = (
    "I think|we really believe|they said|my brother told me|nobody knew|the teacher explained|perhaps|of course|you know|yesterday"
    "|after the meeting|in the morning|please remember|and so my fellow citizens|don't worry about him|he wondered whether|as a matter of fact"
    "|my friends|once upon a time|well, to be honest|let me tell you|it seems|I am afraid",
    "the weather is changing|our neighbours are moving away|this old house was built by hand|the train never stops there|she plays the piano"
    "|he asked for another glass of water|people should ask what they can do|the children ran across the street|nothing happened at all"
    "|the garden looks beautiful|we have to finish the report|somebody left the window open|the doctor is not available|music makes everything better"
    "|the river is rising quickly|they are coming down the road|your order will be delivered|the password must be changed|I could hardly believe my eyes"
    "|the government announced a new programme|the cat sleeps under the table",
    "because of the storm|without any warning|with great pleasure|before the end of the summer|in spite of everything|for your country"
    "|near the station|at home|when the lights went out|as usual|with a smile|on the other side of the bridge|if you ask me|for a very long while"
    "|until further notice|and nobody complained||||",
)
_CHINESE = (
    "我觉得|大家都知道|老师说|其实|昨天晚上|他告诉我|因为下雨|没想到|如果可以的话|请你记得|我妈妈常常说|听说|你好|不好意思|那个时候|公司决定|总的来说|欢迎大家来|小朋友们|说真的",
    "这个城市变得很漂亮|他们已经搬到南部去了|明天可能会下大雨|火车从来不在这里停|她喜欢弹钢琴|我们应该早点回家|这家餐厅的面条很好吃|孩子们在公园里跑来跑去"
    "|没有人愿意帮忙|天气越来越冷|医生今天不在|会议改在下午举行|客户想要了解更多的资料|新的系统还没有上线|他把钥匙忘在办公室|这部电影让人感动|窗户没有关好|音乐让生活更美好"
    "|请先确认您的身份|网络连接不太稳定|我想要一杯热茶",
    "所以要带雨伞|真是太可惜了|对不对|你觉得怎么样|谢谢你的帮忙|再见|然后就回去了|请稍等|大家都很高兴|也没有关系|这样比较好|我不知道该怎么办||||",
)
_OTHERS = {
    "Spanish": (
        "Creo que|Mi hermana dice que|Ayer por la tarde|Por favor|Nadie sabe si|En realidad",
        "el tiempo está cambiando|la casa es muy bonita|los niños juegan en el parque|el médico no puede venir|queremos comer en la plaza|la música suena en toda la calle",
        "porque llueve|con mucho gusto|sin decir nada|cerca de la estación||",
    ),
    "French": (
        "Je crois que|Ma mère dit que|Hier soir|Personne ne sait si|En vérité|Bonjour",
        "le temps change|la maison est très belle|les enfants jouent dans le jardin|le médecin ne peut pas venir|nous voulons manger dehors|la musique vient de la rue",
        "parce qu'il pleut|avec plaisir|sans rien dire|près de la gare||",
    ),
    "Hindi": (
        "मुझे लगता है|मेरी माँ कहती है|कल शाम को|सच में|कृपया",
        "मौसम बदल रहा है|घर बहुत सुंदर है|बच्चे बगीचे में खेल रहे हैं|डॉक्टर आज नहीं आएंगे|हम बाहर खाना चाहते हैं",
        "क्योंकि बारिश हो रही है|बिना कुछ कहे|स्टेशन के पास||",
    ),
    "Italian": (
        "Penso che|Mia madre dice che|Ieri sera|Nessuno sa se|In realtà|Buongiorno",
        "il tempo sta cambiando|la casa è molto bella|i bambini giocano nel parco|il medico non può venire|vogliamo mangiare fuori|la musica arriva dalla strada",
        "perché piove|con piacere|senza dire niente|vicino alla stazione||",
    ),
    "Japanese": (
        "たぶん|きのうのよる|せんせいは|ほんとうに|わたしのははは",
        "てんきがかわっています|このいえはとてもきれいです|こどもたちがこうえんであそんでいます|でんしゃがなかなかきません|そとでたべたいとおもいます",
        "あめがふっているから|なにもいわずに|えきのちかくで||",
    ),
    "Portuguese": (
        "Eu acho que|Minha mãe diz que|Ontem à noite|Ninguém sabe se|Na verdade|Por favor",
        "o tempo está mudando|a casa é muito bonita|as crianças brincam no jardim|o médico não pode vir|queremos comer na praça|a música toca na rua",
        "porque chove|com muito prazer|sem dizer nada|perto da estação||",
    ),
    "German": (
        "Ich glaube|Meine Mutter sagt|Gestern Abend|Niemand weiß|Ehrlich gesagt|Guten Tag",
        "das Wetter ändert sich|das Haus ist sehr schön|die Kinder spielen im Garten|der Arzt kann nicht kommen|wir wollen draußen essen|die Musik kommt von der Straße",
        "weil es regnet|mit Vergnügen|ohne etwas zu sagen|in der Nähe vom Bahnhof||",
    ),
    "Russian": (
        "Я думаю|Моя мама говорит|Вчера вечером|Никто не знает|Честно говоря",
        "погода меняется|дом очень красивый|дети играют в саду|врач не может прийти|мы хотим поесть на улице",
        "потому что идёт дождь|с удовольствием|ничего не сказав|недалеко от вокзала||",
    ),
    "Korean": (
        "제 생각에는|어머니가 말하기를|어제 저녁에|솔직히 말해서",
        "날씨가 변하고 있어요|집이 아주 예뻐요|아이들이 공원에서 놀아요|의사가 올 수 없어요|밖에서 먹고 싶어요",
        "비가 오기 때문에|아무 말 없이|역 근처에서||",
    ),
}
PARTS: dict[str, tuple[list[str], ...]] = {
    language: tuple(part.split("|") for part in parts)
    for language, parts in {"English": _ENGLISH, "Chinese": _CHINESE, **_OTHERS}.items()
}
_WITHOUT_SPACES = ("Chinese", "Japanese")


def sentence(rng: random.Random, languages: dict[str, int] | None = None) -> Text:
    """A sentence or a part of one; ``written`` is empty, ``language`` is the language that is spoken."""
    shares = languages or SHARES
    language = rng.choices(list(shares), list(shares.values()))[0]
    parts = [rng.choice(part) for part in PARTS[language]]
    kind = rng.random()
    if kind < 0.12:
        parts = [parts[0]]
    elif kind < 0.3:
        parts = [parts[1]]
    elif kind < 0.45:
        parts = parts[1:]
    pause = rng.choice(("", "，")) if language == "Chinese" else "" if language in _WITHOUT_SPACES else " "
    return Text(language, "", pause.join(part for part in parts if part))
